"""Generates the toy protos' Python code anew: `python server/transcoder/tests/toy/regenerate.py [folder]`.

Must be run with the project's own grpcio-tools, so that the code is the pinned generator's.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
PROTOS = ("toy.proto", "toy_legacy.proto", "toy_edition.proto")


def generate(target: Path) -> None:
    """Writes `toy/toy*_pb2.py` and `.pyi` below `target`."""
    includes = [HERE.parent, Path(str(files("grpc_tools"))) / "_proto", _googleapis()]
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    outputs = [f"--python_out={target}", f"--plugin=protoc-gen-mypy={plugin}", f"--mypy_out=quiet:{target}"]
    arguments = ["protoc", *(f"-I{path}" for path in includes), *outputs]
    code = protoc.main([*arguments, *(f"toy/{name}" for name in PROTOS)])
    if code:
        raise SystemExit(code)


def _googleapis() -> Path:
    """Where googleapis-common-protos keeps google/api/annotations.proto."""
    from google.api import annotations_pb2  # noqa: PLC0415 - only its place is wanted

    return Path(str(annotations_pb2.__file__)).parents[2]


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
