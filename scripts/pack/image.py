"""Writes an OCI archive with the settings of the last stage of the Dockerfile. `docker load` of any age reads it.

The tools that write OCI images leave out the health check: it is an addition of Docker's to the
configuration of an image.

    image.py VERSION REVISION ARCHIVE LAYER.tar ...
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shlex
import sys
import tarfile

SECOND = 1_000_000_000
LABEL = "org.opencontainers.image."
OCI = "application/vnd.oci.image."
DATE = int(os.environ["SOURCE_DATE_EPOCH"])
CREATED = datetime.datetime.fromtimestamp(DATE, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Those of the last stage, each with its text."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    last = max(index for index, line in enumerate(lines) if line[0] == "FROM")
    return [(line[0], line[1]) for line in lines[last + 1 :]]


def health_check(text: str) -> dict:
    """`HEALTHCHECK --interval=10s ... CMD [...]`"""
    options, command = text.split("CMD", maxsplit=1)
    check: dict = {"Test": ["CMD", *json.loads(command)]}
    for option in options.split():
        name, value = option.removeprefix("--").split("=")
        key = "".join(word.capitalize() for word in name.split("-"))
        check[key] = int(value) if name == "retries" else int(value.removesuffix("s")) * SECOND
    return check


def settings(dockerfile: str, version: str, revision: str) -> dict:
    """The part `config` of an image's configuration."""
    config: dict = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Labels": {}}
    for name, text in instructions(dockerfile):
        match name:
            case "USER" | "STOPSIGNAL" | "WORKDIR":
                config[{"USER": "User", "STOPSIGNAL": "StopSignal", "WORKDIR": "WorkingDir"}[name]] = text
            case "ENTRYPOINT" | "CMD":
                config[name.capitalize()] = json.loads(text)
            case "EXPOSE":
                config["ExposedPorts"] = {f"{port}/tcp": {} for port in text.split()}
            case "VOLUME":
                config["Volumes"] = {path: {} for path in text.split()}
            case "LABEL":
                config["Labels"].update(pair.split("=", maxsplit=1) for pair in shlex.split(text))
            case "HEALTHCHECK":
                config["Healthcheck"] = health_check(text)
            # The files are in the layers.
            case "COPY" | "RUN":
                pass
            case _:
                sys.exit(f"image.py: does not know the instruction {name} of the Dockerfile")
    config["Labels"] |= {LABEL + "version": version, LABEL + "revision": revision, LABEL + "created": CREATED}
    return config


class Archive:
    """An OCI image layout in a tar file; equal contents give equal bytes."""

    def __init__(self, path: str) -> None:
        self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> None:
        """Adds one file."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(data), DATE, 0o644
        self.tar.addfile(member, io.BytesIO(data))

    def blob(self, media_type: str, data: bytes) -> dict:
        """Adds a file named after its hash, and returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.add(f"blobs/sha256/{digest}", data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def json(self, media_type: str, value: dict) -> dict:
        """Adds a document."""
        return self.blob(media_type, encoded(value))


def encoded(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main() -> None:
    version, revision, path, *layers = sys.argv[1:]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    dockerfile = pathlib.Path("Dockerfile").read_text(encoding="utf-8")
    archive = Archive(path)
    archive.add("oci-layout", encoded({"imageLayoutVersion": "1.0.0"}))
    hashes, blobs = [], []
    for layer in layers:
        data = pathlib.Path(layer).read_bytes()
        hashes.append("sha256:" + hashlib.sha256(data).hexdigest())
        blobs.append(archive.blob(OCI + "layer.v1.tar+gzip", gzip.compress(data, mtime=0)))
    history = [{"created": CREATED, "created_by": pathlib.Path(layer).name} for layer in layers]
    config = archive.json(
        OCI + "config.v1+json",
        {
            "architecture": architecture,
            "os": "linux",
            "created": CREATED,
            "config": settings(dockerfile, version, revision),
            "rootfs": {"type": "layers", "diff_ids": hashes},
            "history": history,
        },
    )
    manifest = archive.json(
        OCI + "manifest.v1+json",
        {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": config, "layers": blobs},
    )
    name = settings(dockerfile, version, revision)["Labels"][LABEL + "title"]
    manifest["annotations"] = {
        LABEL + "ref.name": version,
        "io.containerd.image.name": f"docker.io/library/{name}:{version}",
    }
    index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [manifest]}
    archive.add("index.json", encoded(index))
    # For `docker load` before version 25.
    blob = "blobs/sha256/{}".format
    files = [blob(layer["digest"].split(":")[1]) for layer in blobs]
    legacy = {"Config": blob(config["digest"].split(":")[1]), "RepoTags": [f"{name}:{version}"], "Layers": files}
    archive.add("manifest.json", encoded([legacy]))
    archive.tar.close()


main()
