"""`python -m yolov3_trt`, and the script of the same name."""

import signal


def main() -> None:
    """Run the command line; while its modules load, Ctrl-C ends the process at once and without a traceback."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from yolov3_trt.cli import entrypoint

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    entrypoint()


if __name__ == "__main__":
    main()
