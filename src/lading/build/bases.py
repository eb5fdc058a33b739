"""Base images: what FROM and --from name, found in the store or fetched from a registry. Owns that choice."""

from __future__ import annotations

from lading.base.errors import NotFound, Unavailable, Unsupported
from lading.build.ports import Fetch
from lading.build.progress import Notice
from lading.build.work import Work
from lading.image import reference
from lading.image.descriptor import Platform
from lading.store.images import Image, Images


class Bases:
    """The base images of one build; each is looked up, and fetched, once at most."""

    def __init__(self, images: Images, fetch: Fetch | None, work: Work) -> None:
        self._images, self._fetch, self._work = images, fetch, work
        self._found: dict[tuple[str, Platform], Image] = {}

    def find(self, name: str, platform: Platform) -> Image:
        """The image for the platform: the store's, or a registry's where the store has none or --pull asks for the
        newest.
        """
        key = (name, platform)
        if key not in self._found:
            self._found[key] = self._find(name, platform)
        return self._found[key]

    def _find(self, name: str, platform: Platform) -> Image:
        image, hint = self._stored(name)
        there = image is not None and _fits(image, platform)
        fetch, request = self._fetch, self._work.request
        if fetch is not None and (request.pull or not there) and not reference.is_id(name):
            self._work.report(Notice(f"Pulling {name[:200]}"))
            try:
                fetch(name, str(platform), request.access)
                image, hint = self._stored(name)
            except Unavailable as error:
                request.check()
                if there:
                    self._work.report(Notice(f"{name[:200]} is the store's: {error}", "warning"))
                elif image is None:
                    raise NotFound(
                        f"the base image {name[:200]} is not in the store, and no registry gives it",
                        why=f"{error.what}{'. ' + error.why if error.why else '.'}",
                        hint=hint,
                    ) from error
        if image is None:
            raise NotFound(f"the base image {name[:200]} is not in the store", hint=hint)
        if not _fits(image, platform):
            config = image.config
            raise Unsupported(
                f"the image {name[:200]} is for {config.os}/{config.architecture}, not for {platform}",
                hint="Use an image for this platform.",
            )
        return image

    def _stored(self, name: str) -> tuple[Image | None, str]:
        """The store's image, or what to do where it has none."""
        try:
            return self._images.get(name), ""
        except NotFound as error:
            advice = f"Make it with `lading bootstrap {name[:200]}`, or load it with `lading load`."
            return None, error.hint or advice


def _fits(image: Image, platform: Platform) -> bool:
    return (image.config.os, image.config.architecture) == (platform.os, platform.architecture)
