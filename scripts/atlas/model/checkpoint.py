"""The tensors of a checkpoint folder, by name, each read when asked for, without building the model."""

import json
from collections.abc import Callable
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import safe_open

from atlas.core.errors import StudyError, one_line


class Checkpoint:
    """Tensors of a Hugging Face checkpoint, from safetensors files or `pytorch_model*.bin`, whole or in shards.

    ``folder``: where the files are; ``device`` and ``dtype``: of the tensors it gives.
    """

    def __init__(self, folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.device, self.dtype = folder, device, dtype
        self.sources: dict[str, Callable[[str], torch.Tensor]] = {}
        for file in shards(Path(folder)):
            try:
                self._open(file)
            except Exception as error:  # each format has its own kinds; a pickle that is more than tensors among them
                raise StudyError(f"models: {file} cannot be read ({one_line(error)}); fetch it again") from None

    def _open(self, file: Path) -> None:
        if file.suffix == ".safetensors":
            handle = safe_open(file, framework="pt", device=self.device)
            self.sources |= dict.fromkeys(handle.keys(), handle.get_tensor)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
            self.sources |= dict.fromkeys(tensors, tensors.__getitem__)

    def name(self, name: str) -> str:
        """The name in the files: old checkpoints leave out the part before the first dot, the body's own name."""
        return name if name in self.sources else name.split(".", 1)[-1]

    def __contains__(self, name: str) -> bool:
        return self.name(name) in self.sources

    def __getitem__(self, name: str) -> torch.Tensor:
        """Raises StudyError where the files have no such tensor."""
        if name not in self:
            raise StudyError(f"models: the weights in {self.folder} lack {name!r}; are all of its files there?")
        name = self.name(name)
        return self.sources[name](name).to(self.device, self.dtype)

    def optional(self, name: str) -> torch.Tensor | None:
        """The tensor of this name, in its own shape; None where the checkpoint has none."""
        present = name in self
        return self[name] if present else None


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights, as transformers chooses them: safetensors first, an index before loose files."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        whole, index = folder / f"{stem}.{suffix}", folder / f"{stem}.{suffix}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                outside = [name for name in names if Path(name).name != name]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StudyError(f"models: {index} is no index of weights; fetch it again") from None
            missing = [name for name in names if not (folder / name).is_file()]
            if outside or missing:
                said = "is no file of this folder" if outside else "is missing"
                raise StudyError(f"models: {index} names {(outside or missing)[0]!r}, which {said}; fetch all files")
            return [folder / name for name in names]
    return []
