"""Reads XML that may be hostile: without entities, in any encoding that annotation tools use."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from utils.errors import DataError

# Encodings that the parser does not know and editors of annotations use; names as in an XML declaration.
_FURTHER_ENCODINGS = re.compile(
    r"gbk|gb2312|gb18030|cp936|big5|shift_jis|cp932|euc-jp|euc-kr|cp949|windows-125[0-8]|koi8-r", re.I
)
_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?>")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([\w.-]+)[\"']")


def read_xml(data: bytes, where: str) -> Element:
    """Return an XML's root element; DataError if it is not XML or has a DOCTYPE.

    Entities, which can expand a short file without end or include other files, are declared in a DOCTYPE only. So a
    DOCTYPE is refused when the parser reaches it; a search in the bytes would miss it in other encodings. Text that
    is neither UTF-8 nor in the declared encoding is read as GBK.
    """
    try:
        try:
            return _parse(data, None)
        except (expat.ExpatError, LookupError, ValueError):
            text = _in_another_encoding(data)
            if text is None:
                raise
            return _parse(_DECLARATION.sub(b"", text.encode()), "utf-8")
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(where, f"cannot be read as XML ({error})", fix="correct it, or save it as UTF-8") from error


def _in_another_encoding(data: bytes) -> str | None:
    """Return the text of an XML that is not UTF-8 and not in an encoding the parser knows; None if that fails."""
    head = _DECLARATION.match(data)
    declared = _ENCODING.search(head[0]) if head else None
    encoding = declared[1].decode() if declared else ""
    try:
        if _FURTHER_ENCODINGS.fullmatch(encoding):
            return data.decode(encoding)
        if encoding.lower() in ("", "utf-8", "utf8") and not _is_utf8(data) and b"\0" not in data:
            return data.decode("gb18030")
    except UnicodeDecodeError:
        pass
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parse(data: bytes, encoding: str | None) -> Element:
    def refuse(*_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no annotation needs")

    builder = TreeBuilder()
    parser = expat.ParserCreate(encoding)
    parser.StartDoctypeDeclHandler = refuse
    parser.DefaultHandler = lambda _: None  # with a handler, the parser does not expand entities
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()
