"""Reading a form gives the same bytes however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.multipart import UploadForm

BOUNDARY = b"cut-here"


@given(st.binary(max_size=300), st.lists(st.integers(1, 400), max_size=8), st.sampled_from([b"", b"A name"]))
def test_pieces_make_no_difference(content: bytes, cuts: list[int], name: bytes):
    """The file's bytes and its name, with the boundary's own characters inside too."""
    content = content.replace(BOUNDARY, b"")
    field = b'--cut-here\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name + b"\r\n" if name else b""
    head = b'--cut-here\r\nContent-Disposition: form-data; name="file"; filename="a/b.txt"\r\n\r\n'
    body = field + head + content + b"\r\n--cut-here--\r\n"
    form = UploadForm("multipart/form-data; boundary=cut-here")
    received, start = b"", 0
    for cut in [*cuts, len(body)]:
        received += b"".join(form.feed(body[start : start + cut]))
        start += cut
    form.finish()
    assert received == content
    assert form.name == (name.decode() or "b.txt")
