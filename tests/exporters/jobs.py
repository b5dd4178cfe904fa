"""Exports to compare: every family and task that Ultralytics has, and every form of a file for the newest of them.

A job is a YAML, arguments of `export`, and perhaps the number of anchors of a picture that shall score above .3 before
suppression.
"""

FORMS = {"": {}, "-dynamic": {"dynamic": True}, "-half": {"half": True}, "-nms": {"nms": True}}
TASKS = {"": "", "-seg": "-seg", "-pose": "-pose", "-obb": "-obb", "-cls": "-cls"}
ALL_FORMS = ("11", "26")
FAMILIES = {"v8": "yolov8n", "11": "yolo11n", "12": "yolo12n", "26": "yolo26n"}
END_TO_END = {"nms": False}
"""So Ultralytics calls an export of the head that needs no suppression."""


def jobs():
    """Name to job."""
    others = {
        "v3-tiny": ["yolov3-tiny.yaml", {}],
        "v5": ["yolov5n.yaml", {}],
        "v5-p6": ["yolov5n-p6.yaml", {}],
        "v6": ["yolov6n.yaml", {}],
        "v8-p2": ["yolov8n-p2.yaml", {}],
        "v9": ["yolov9t.yaml", {}],
        "v9-seg": ["yolov9c-seg.yaml", {}, 120],  # with 60, suppression leaves 15 objects of one picture
        "v10": ["yolov10n.yaml", {}],
        "v10-end2end": ["yolov10n.yaml", END_TO_END],
        "v10-end2end-dynamic": ["yolov10n.yaml", {**END_TO_END, "dynamic": True}],
        "26-end2end-half": ["yolo26n.yaml", {**END_TO_END, "half": True}],
        "11-wide": ["yolo11n.yaml", {"imgsz": [192, 320]}],
        "11-tall": ["yolo11n.yaml", {"imgsz": [320, 192]}],
        "11-cls-wide": ["yolo11n-cls.yaml", {"imgsz": [160, 224]}],
        "11-cls-tall-dynamic": ["yolo11n-cls.yaml", {"imgsz": [224, 160], "dynamic": True}],
        "rtdetr": ["rtdetr-l.yaml", {}],
        "rtdetr-dynamic": ["rtdetr-l.yaml", {"dynamic": True}],
    }
    return others | dict(_of_families())


def _of_families():
    for family, stem in FAMILIES.items():
        for task in TASKS:
            yaml = f"{stem}{task}.yaml"
            for form, options in FORMS.items():
                is_wanted = family in ALL_FORMS or form == "" or (family, form) == ("v8", "-dynamic")
                if is_wanted and not (task == "-cls" and form == "-nms"):
                    yield f"{family}{task}{form}", [yaml, options]
            if family == "26" and task != "-cls":
                yield f"{family}{task}-end2end", [yaml, END_TO_END]
                yield f"{family}{task}-end2end-dynamic", [yaml, {**END_TO_END, "dynamic": True}]
