"""Recognizes members of a wheel with code that no check reads, such as archives and scripts."""

from __future__ import annotations

# Magic numbers as in file(1). Our wheels contain no file of these kinds.
_MAGIC = {
    b"!<arch>\n": "a static archive",
    b"!<thin>\n": "a static archive",
    b"\x1f\x8b": "a gzip file",
    b"\x1f\x9d": "a compressed file",
    b"\xfd7zXZ\0": "an xz file",
    b"]\0\0\x80\0": "an lzma file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"MSCF": "a cabinet archive",
    b"PK\x03\x04": "a zip file or a wheel in the wheel",
    b"PK\x05\x06": "a zip file or a wheel in the wheel",
    b"\xfe\xed\xfa\xce": "a Mach-O file",
    b"\xfe\xed\xfa\xcf": "a Mach-O file",
    b"\xce\xfa\xed\xfe": "a Mach-O file",
    b"\xcf\xfa\xed\xfe": "a Mach-O file",
    b"\xca\xfe\xba\xbe": "a Mach-O file or Java code",
    b"BC\xc0\xde": "LLVM bitcode",
    b"\xde\xc0\x17\x0b": "LLVM bitcode",
    b"\0asm": "WebAssembly",
    b"\x50\xed\x55\xba": "a fat binary of CUDA",
    b"\x01ZPE": "a PE file",
    b"dex\n": "Android code",
}
_TAR = slice(257, 262)


def code(name: str, head: bytes, mode: int) -> str | None:
    """The kind of a member with code that no check reads ("a gzip file"); None for others.

    ``head`` is its first bytes (300 or more, if it is that long); ``mode`` its permissions.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[_TAR] == b"ustar":
        return "a tar archive"
    if head[:2] == b"\x64\x86" and _object(head):
        return "an object file"
    if head.startswith(b"#!") and mode & 0o111:
        return "a script that can be executed"
    if name.lower().endswith((".a", ".o", ".obj", ".lib", ".local", ".manifest", ".ptx", ".cubin")):
        return f"a file that ends in .{name.rsplit('.', 1)[-1]}"
    return None


def _object(head: bytes) -> bool:
    """Whether a COFF header for x86-64 has few sections and no optional header."""
    return 0 < int.from_bytes(head[2:4], "little") < 256 and head[16:18] == b"\0\0"
