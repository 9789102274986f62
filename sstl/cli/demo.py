"""``sstl demo``: a web page on this machine that derains photos and short clips, and adapts to them."""

from __future__ import annotations

import argparse

from sstl.cli.output import whole

EXAMPLES = """examples:
  sstl demo
  sstl demo --port 8000 --weights runs/mine/weights.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", metavar="N", type=whole(0, 65535), help="of 127.0.0.1 (default: any free one)")
    parser.add_argument(
        "--weights",
        metavar="NAME|PATH",
        nargs="+",
        default=[],
        help="more weights to choose from than the shipped ones",
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from sstl.demo.page import import_gradio, main
    from sstl.networks.weights import read_info

    for weights in args.weights:
        read_info(weights)  # what is on the hub is fetched now: the page itself asks no other server
    import_gradio()
    main(args.weights, args.port, lambda address: print(f"open {address} in a browser; Ctrl-C ends it", flush=True))
    return 0
