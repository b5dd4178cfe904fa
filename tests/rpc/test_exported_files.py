"""Files as exporters write them, served without a configuration: from a frame to boxes in its own pixels."""

import cv2
import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from tests.support import exported
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server

ROW = [32, 32, 16, 8, 0.1, 0.9]  # a box in pixels of the model's picture of 64x64


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


DETECTOR = parameter("task", "detection") + parameter("scale", "1/255")


async def results(running, picture, **fields):
    payload = cv2.imencode(".png", picture)[1].tobytes()
    stream = await running.open(model="best", encoding=pb.ENCODING_PNG, **fields)
    await stream.send(1, payload)
    result = await stream.result()
    await stream.half_close()
    return result


@on_loop
async def test_boxes_come_in_pixels_of_the_frame_with_the_files_names(tmp_path):
    async with real_server(exported.yolo(tmp_path / "best.onnx", [ROW])) as running:
        result = await results(running, np.full((64, 128, 3), 255, np.uint8))
    (found,) = result.detections
    # the frame is halved, and 16 rows are padded above and below: their grey lowers the mean, and with it the score
    assert (found.label, found.class_id) == ("dog, brown", 1)
    assert found.score == pytest.approx(0.9 * (0.5 + 0.5 * 114 / 255), abs=1e-5)
    box = found.box_pixels
    assert [box.x_min, box.y_min, box.x_max, box.y_max] == pytest.approx([48, 24, 80, 40])


@on_loop
async def test_a_file_of_an_open_height_and_width_gives_boxes_at_the_size_that_it_was_exported_for(tmp_path):
    file = exported.yolo(tmp_path / "best.onnx", [ROW], sides=("height", "width"), batch="batch")
    async with real_server(file) as running:
        metadata = await stub_of(running).ModelMetadata(inference_pb2.ModelMetadataRequest(name="best"))
        result = await results(running, np.full((64, 128, 3), 255, np.uint8))
    assert [list(tensor.shape) for tensor in metadata.outputs] == [[-1, 6, 84]]
    (found,) = result.detections
    box = found.box_pixels
    assert [box.x_min, box.y_min, box.x_max, box.y_max] == pytest.approx([48, 24, 80, 40])


@on_loop
async def test_a_file_that_lies_about_its_names_serves_tensors_and_says_how_to_go_on(tmp_path):
    metadata = {**exported.METADATA, "names": "['a', 'b', 'c']"}
    async with real_server(exported.yolo(tmp_path / "best.onnx", [ROW], metadata)) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.open(model="best", encoding=pb.ENCODING_PNG)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "takes no pictures" in caught.value.details()
    assert "best.pbtxt: there are 3 labels for the model's 2 classes: give 2" in caught.value.details()


@on_loop
async def test_the_log_says_what_of_the_metadata_is_not_used_and_what_is_missing_for_pictures(tmp_path):
    metadata = {**exported.METADATA, "names": repr(dict(enumerate(["a" * 100] * 20_000))), "imgsz": "[-64, 64]"}
    file = exported.yolo(tmp_path / "best.onnx", [ROW], {**metadata, "task": "pose", "kpt_shape": "[2, 3]"})
    with capture_logs() as logs:
        async with real_server(file):
            pass
    said = [line for line in logs if line.get("model") == "best"]
    details = [line["detail"] for line in said if line["event"] == "configuration"]
    assert [detail.partition(" is ")[0] for detail in details] == [
        "best: the file's metadata 'names'",
        "best: the file's metadata 'imgsz'",
    ]
    assert "longer than" in details[0]
    (remedy,) = [line["remedy"] for line in said if line["event"] == "model takes no pictures"]
    assert "do not fit pose with keypoint_shape 2x3: correct these, or write the parameter 'head'" in remedy
    assert len(remedy) < 400


@pytest.mark.parametrize("labels", ["cat\n\ndog", "cat\r\n \r\ndog\r\n"])
@on_loop
async def test_a_line_without_a_label_is_called_by_its_number(tmp_path, labels):
    metadata = {key: value for key, value in exported.METADATA.items() if key != "names"} | {"names": "-"}
    (tmp_path / "labels.txt").write_bytes(labels.encode())
    async with real_server(exported.yolo(tmp_path / "best.onnx", [[*ROW, 0.0]], metadata)) as running:
        response = await stub_of(running).ModelConfig(inference_pb2.ModelConfigRequest(name="best"))
    assert response.config.parameters["labels"].string_value == '["cat", "1", "dog"]'


@on_loop
async def test_what_was_derived_is_in_the_configuration_that_clients_read(tmp_path):
    async with real_server(exported.yolo(tmp_path / "best.onnx", [ROW])) as running:
        response = await stub_of(running).ModelConfig(inference_pb2.ModelConfigRequest(name="best"))
    values = {key: value.string_value for key, value in response.config.parameters.items()}
    assert values["task"] == "detection"
    assert values["labels"] == '["person", "dog, brown"]'


@on_loop
async def test_a_model_in_tritons_layout_keeps_the_input_that_its_clients_know(tmp_path):
    folder = tmp_path / "best" / "1"
    folder.mkdir(parents=True)
    exported.yolo(folder / "model.onnx", [ROW])
    async with real_server(tmp_path) as running:
        metadata = await stub_of(running).ModelMetadata(inference_pb2.ModelMetadataRequest(name="best"))
        result = await results(running, np.full((64, 64, 3), 255, np.uint8))
    assert (metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("FP32", [-1, 3, 64, 64])
    assert len(result.detections) == 1


@on_loop
async def test_a_detector_that_gives_a_row_for_each_object_asks_for_their_number_and_gives_boxes_then(tmp_path):
    file = exported.objects(tmp_path / "best.onnx", [[8, 8, 24, 24], [16, 32, 32, 48], [0, 0, 8, 8]], side=64, few=1)
    file.with_suffix(".pbtxt").write_text(DETECTOR)
    async with real_server(file) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.open(model="best", encoding=pb.ENCODING_PNG)
    assert "write the parameter output_rows, such as 300, in best.pbtxt" in caught.value.details()
    file.with_suffix(".pbtxt").write_text(DETECTOR + parameter("output_rows", "2"))
    async with real_server(file) as running:
        grey, white = [await results(running, np.full((128, 64, 3), pixel, np.uint8)) for pixel in (50, 255)]
    assert [[found.class_id for found in result.detections] for result in (grey, white)] == [[1], [1, 2]]
    box = white.detections[1].box_pixels
    assert [box.x_min, box.y_min, box.x_max, box.y_max] == pytest.approx([16, 64, 32, 96])
