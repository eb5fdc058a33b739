"""The Dockerfile language: `parse` gives a `Dockerfile` of stages, or a `DockerfileError` that says where
and why.
"""

from lading.build.dockerfile.errors import DockerfileError, Position
from lading.build.dockerfile.instructions import Dockerfile, Instruction, Stage
from lading.build.dockerfile.parser import parse, parse_trigger

__all__ = ["Dockerfile", "DockerfileError", "Instruction", "Position", "Stage", "parse", "parse_trigger"]
