"""What people type: two examples for each verb, shown at the end of its `--help`."""

_EXAMPLES = {
    "models": ("models", "models --json -"),
    "fetch": ("fetch yolov3-tiny", "fetch yolov3 --from ~/Downloads/yolov3.weights"),
    "export": (
        "export yolov3.cfg --precision fp16",
        "export yolov3 --input-size 608x416 --input-stage pixels --output-stage detections --frame-size 1280x720",
    ),
    "adopt": (
        "adopt theirs.onnx --cfg yolov3-tiny",
        "adopt theirs.onnx --anchors '23,27,37,58,81,82;81,82,135,169,344,319' --names door.names -o door.onnx",
    ),
    "calibrate": (
        "calibrate yolov3.cfg --images photos/ --num-images 256",
        "calibrate engines/yolov3-416-fp32.onnx --images photos/ --method entropy -o calib/yolov3.json",
    ),
    "quantize": (
        "quantize yolov3.cfg --images photos/ --val-images val/ --annotations val.json",
        "quantize yolov3 --images photos/ --val-images val/ --annotations val.json --max-ap-drop 0.01 -o int8/",
    ),
    "build": (
        "build yolov3.cfg --precision int8 --images photos/",
        "build yolov3-416-fp16 --weights yolov3.weights -o door.engine",
    ),
    "detect": ("detect shapes --sample --save out/", "detect yolov3.engine photos/ --conf 0.4 --jsonl found.jsonl"),
    "camera": (
        "camera yolov3.engine --source 0 --sink window",
        "camera yolov3.engine --source rtsp://door/stream --sink http://127.0.0.1:8080 --sink found.jsonl",
        "camera yolov3.engine --cameras camera.toml",
    ),
    "compare": (
        "compare yolov3.cfg yolov3-416-fp16.onnx --images photos/",
        "compare yolov3.cfg wrong.onnx --data data.yaml --explain",
    ),
    "certify": (
        "certify yolov3-tiny",
        "certify yolov3-tiny-416-int8.onnx --data val.json --images val/",
    ),
    "bench": (
        "bench yolov3 yolov3-416-fp16.engine --frames 200",
        "bench yolov3-416-fp16.onnx yolov3-416-int8.onnx --json bench.json",
    ),
    "eval": (
        "eval yolov3.engine --images val/ --annotations val.json",
        "eval yolov3-416-fp32.onnx yolov3-416-int8.onnx --images val/ --annotations val.json --json ap.json",
    ),
    "report": (
        "report yolov3-tiny.cfg --data data.yaml --precisions fp32,fp16,int8",
        "report yolov3 --data val.json --precisions fp32,fp16 --engines -o yolov3.html",
    ),
    "info": ("info yolov3.engine", "info yolov3.cfg --json -"),
    "doctor": ("doctor", "doctor --json -"),
    "train": (
        "train --data data.yaml --model shapes --epochs 50",
        "train --data data.yaml --model yolov3.cfg --weights yolov3.weights --epochs 20",
    ),
    "data check": ("data check data.yaml", "data check val.json --report data.html"),
    "data convert": ("data convert data.yaml --to coco -o coco/", "data convert val.json --to yolo -o yolo/ --link"),
    "data anchors": ("data anchors data.yaml --model yolov3-tiny", "data anchors data.yaml --count 9 --input-size 608"),
    "data shapes": ("data shapes -o shapes-data/", "data shapes -o shapes-data/ --seed 7"),
    "shapes": ("shapes -o shapes-data/", "shapes -o shapes-data/ --seed 7"),
    "demo": ("demo", "demo -o out/"),
}


def examples_of(verb: str) -> list[str]:
    """The command lines of a verb's examples."""
    return [f"yolov3_trt {line}" for line in _EXAMPLES[verb]]


def epilog_of(verb: str) -> str:
    """The end of a verb's help: each example a line of its own."""
    return "\n\n".join(["Examples:", *examples_of(verb)])
