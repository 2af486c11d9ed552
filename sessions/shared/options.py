"""The values of every option of every session."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.shared.build_spec import CacheName


@dataclass(frozen=True)
class Options:
    """Every option of every session; None: the target decides."""

    target: str | None
    targets: str | None
    version: str | None
    cuda: str | None
    arch: str | None
    python: str | None
    pythons: str | None
    toolkit: str | None
    glibc: str | None
    source: str | None
    cmake: tuple[str, ...]
    wheel: str | None
    device: str | None
    model: str | None
    families: str
    baseline: tuple[str, ...]
    cpu_module: tuple[str, ...]
    rounds: int
    report: str | None
    reports: str | None
    sign: str | None
    signers: str | None
    compiler: str | None
    cache: CacheName
    jobs: int | None
    offline: bool
    fresh: bool
    prerelease: bool
    force: bool
    all: bool
    wheels: bool
    caches: bool
    dry_run: bool
    lang: str
    allow_untested_gpu: bool
    reproduce: bool
    sigstore: bool
    record: str | None
    add: str | None
    to: str | None
    help: bool
    dists: tuple[str, ...] = ()  # the folders that the session index merges
