"""Archives that Linux unpacks behind another initramfs."""

import pathlib


def archive(files):
    """A cpio archive (newc) of {path: contents} and the folders that they are in."""
    out = bytearray()

    def add(name, mode, data=b""):
        out.extend(b"070701")
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.extend("".join(f"{field:08X}" for field in fields).encode())
        out.extend(name.encode() + b"\0")
        out.extend(bytes(-len(out) % 4))
        out.extend(data)
        out.extend(bytes(-len(out) % 4))

    folders = {parent for path in files for parent in pathlib.PurePath(path).parents}
    for folder in sorted(map(str, folders - {pathlib.PurePath(".")})):
        add(folder, 0o040755)
    for path, data in files.items():
        add(path, 0o100755, data.encode() if isinstance(data, str) else data)
    add("TRAILER!!!", 0)
    return bytes(out)
