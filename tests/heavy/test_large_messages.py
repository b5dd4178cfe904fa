"""Messages as large as the operator allows, up to gRPC's own limit. 2 GB of memory."""

import grpc
import numpy as np

from forebay.wire import inference_pb2 as pb
from tests.support import worst_messages
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server

COLUMNS = 75 << 20  # of four bytes: more than all requests of a version hold together by default


@on_loop
async def test_a_request_above_the_budget_of_a_version_is_served_where_messages_may_be_as_large(tmp_path):
    worst_messages.save_models(tmp_path)
    request = pb.ModelInferRequest(model_name="fp32", raw_input_contents=[bytes(4 * COLUMNS)])
    request.inputs.add(name="x", datatype="FP32", shape=[COLUMNS])
    async with real_server(tmp_path, max_message_bytes=2**31 - 1) as running:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(running.address, options) as running.channel:
            answer = await stub_of(running).ModelInfer(request)
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [COLUMNS]
