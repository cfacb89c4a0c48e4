"""Lets test modules import the helpers that lie beside them."""

import sys
from pathlib import Path

for folder in ("compiler", "hw", "sim", "spec", "cli"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
