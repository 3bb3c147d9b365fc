"""Commands that share a bundle: push, pull."""

import argparse
import sys
from pathlib import Path

from cls_export.cli.output import escape_line
from cls_export.contract.bundle_layout import CARD_FILE
from cls_export.sharing.pull import pull_bundle
from cls_export.sharing.push import push_bundle
from cls_export.sharing.references import parse_reference


def push(options: argparse.Namespace) -> int:
    """Push a bundle and print its digest; the command that pulls it goes to stderr."""
    digest = push_bundle(options.bundle, options.target)
    pinned = parse_reference(options.target).pin(digest)
    print(digest)
    print(f"cls-export: to fetch it: cls-export pull {escape_line(pinned)} DIR", file=sys.stderr)
    return 0


def pull(options: argparse.Namespace) -> int:
    """Fetch a bundle and print its digest; what to read and to pin goes to stderr."""
    reference = parse_reference(options.source)
    digest = pull_bundle(options.source, options.folder)
    print(digest)
    if reference.digest is None:
        pinned = escape_line(reference.pin(digest))
        print(f"cls-export: tags can move; this bundle is {pinned}", file=sys.stderr)
    card = Path(options.folder) / CARD_FILE
    advice = f"; its figures and limits are in {escape_line(str(card))}" if card.exists() else ""
    folder = escape_line(options.folder)
    print(f"cls-export: {folder} passes its self-test{advice}", file=sys.stderr)
    return 0
