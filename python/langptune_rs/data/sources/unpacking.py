"""Unpacking zip files that come from elsewhere."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from langptune_rs.data.sources.failures import disk_error, need_room
from langptune_rs.errors import DataError

_UNSAFE_NAME = re.compile(r'[\\:*?"<>|\x00-\x1f]')


def unpack(archive: Path, folder: Path) -> None:
    """Unpack what `archive` holds below a folder with the name of `folder`. `folder` appears once it is complete.

    Raises `DataError`, before anything is written, for a member that would go elsewhere or is not a plain file. Raises
    it also for a broken archive and a full disk.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not _is_left_out(member)]
            inside = {member.filename: _inside(archive, member, folder.name) for member in members}
            need_room(temporary.parent, sum(member.file_size for member in members), f"the files of {archive.name}")
            for member in members:
                target = temporary / inside[member.filename]
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
        temporary.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is not a whole zip file ({error}). Delete it, and download it again.") from error
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_left_out(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder, which its files bring with them, or an addition of macOS."""
    return member.is_dir() or member.filename.startswith("__MACOSX/")


def _inside(archive: Path, member: zipfile.ZipInfo, top: str) -> PurePosixPath:
    """The path of a member below the folder `top`, which is the same on every system."""
    path = PurePosixPath(member.filename)
    is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    is_below = len(path.parts) > 1 and path.parts[0] == top and ".." not in path.parts
    if not (is_plain and is_below) or _UNSAFE_NAME.search(member.filename):
        raise DataError(
            f"{archive} holds {member.filename!r}, which is not a plain file below {top}/. Nothing is unpacked."
        )
    return path.relative_to(top)
