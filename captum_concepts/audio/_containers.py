"""Lengths that the headers of audio files state; libsndfile returns fewer frames without an error."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

# Writers to a pipe cannot know the length and put a huge one: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 and up (sox).
_UNKNOWN_SIZE = 0x7FFFF000
_OGG_TAIL = 1 << 17  # two pages of the largest size, 65,307 bytes


def is_cut(path: str, file_format: str) -> bool:
    """Whether the file ends before the audio that its header announces.

    WAV, RF64, W64, AU and AIFF state the size of their data; the last page of an Ogg stream carries an end mark. For
    other formats (FLAC and MP3 show it when they are decoded) and for unknown lengths the answer is False.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        try:
            if file_format == "OGG":
                return not _ogg_has_end(file, size)
            end = _announced_end(file, file_format)
        except struct.error:  # the file ends inside a header; libsndfile has opened it and knows better
            return False
    return end is not None and end > size


def mp3_frames_stated(path: str) -> bool:
    """Whether an MP3 file starts with a Xing, Info or VBRI header that counts its frames."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            # ID3v2 sizes are four bytes of seven bits each.
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(256)
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at >= 0 and len(frame) >= at + 8:
            return bool(frame[at + 7] & 1)
    return b"VBRI" in frame


def _announced_end(file: BinaryIO, file_format: str) -> int | None:
    """Byte behind the audio data, as the header has it; None where it does not say."""
    if file_format in ("WAV", "WAVEX"):
        return _chunk_end(file, b"data", "<")
    if file_format == "RF64":
        file.seek(12)
        name, _, _, size = struct.unpack("<4sIQQ", file.read(24))
        return _chunk_end(file, b"data", "<", size) if name == b"ds64" else None
    if file_format == "AIFF":
        return _chunk_end(file, b"SSND", ">")
    if file_format == "AU":
        offset, size = struct.unpack(">II", file.read(12)[4:])
        return None if size >= _UNKNOWN_SIZE else offset + size
    if file_format == "W64":
        file.seek(16)
        return int(struct.unpack("<Q", file.read(8))[0])
    return None


def _chunk_end(file: BinaryIO, wanted: bytes, order: str, known: int | None = None) -> int | None:
    """End of the first chunk named ``wanted``; ``known`` is its size where the chunk itself cannot hold it."""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack(f"{order}4sI", header)
        if name == wanted:
            if known is not None:
                return file.tell() + known
            return None if size == 0 or size >= _UNKNOWN_SIZE else file.tell() + size
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _ogg_has_end(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - _OGG_TAIL))
    tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and page + 5 < len(tail) and bool(tail[page + 5] & 4)
