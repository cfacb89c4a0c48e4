from pathlib import Path

from gateformer.spec.isa import FORMATS
from gateformer.spec.isa_document import render

ROOT = Path(__file__).resolve().parents[2]


def test_committed_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "isa.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m gateformer.spec.isa_document > docs/isa.md"


def test_page_holds_every_field() -> None:
    page = render()
    for form in FORMATS.values():
        assert f"## {form.opcode.name}\n" in page
        assert all(f"`{field.name}`" in page for field in form.fields)
