"""The pictures of the documentation: made from their present sources, self-contained, shown and described."""

import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
IMAGES = sorted((DOCS / "images").iterdir())
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("source", sorted(DOCS.glob("*.dot")), ids=lambda path: path.name)
def test_a_drawing_is_made_from_its_present_source(source):
    drawing = (DOCS / "images" / f"{source.stem}.svg").read_text()
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()
    assert f"sha256:{checksum} " in drawing, "run 'make pictures'"


@pytest.mark.parametrize("picture", IMAGES, ids=lambda path: path.name)
def test_a_picture_needs_nothing_from_elsewhere(picture):
    text = picture.read_text()
    assert ET.fromstring(text).tag == f"{SVG}svg"
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.findall(r"https?:|href|@import|<!DOCTYPE|<script|url\((?!#)", outside)


def test_every_picture_is_shown_and_described():
    shown = {
        (page.parent / path).resolve(): description
        for page in (ROOT / "README.md", *DOCS.glob("*.md"))
        for description, path in re.findall(r"!\[([^]]*)\]\(([^)]*)\)", page.read_text())
    }
    assert sorted(shown) == IMAGES
    assert all(shown.values())
