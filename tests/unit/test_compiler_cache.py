"""The statistics of ccache and sccache: counts, and the text shown at the end of a build."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessions.build import compiler_cache

LOCAL = (
    "# /b/src/ggml.c\ndirect_cache_hit\nlocal_storage_hit\n"
    "# /b/src/ggml.cpp\npreprocessed_cache_hit\n"
    "# /b/src/a.cu\ncache_miss\nlocal_storage_miss\ndirect_cache_miss\n"
)
# From ccache 4.14: a hit in Redis, and a miss when Redis had stopped.
FAR_HIT = (
    "# b.c\ndirect_cache_hit\nlocal_storage_miss\nlocal_storage_read_miss\n"
    "remote_storage_hit\nremote_storage_read_hit\nremote_storage_read_hit\n"
)
FAR_GONE = (
    "# c.c\ncache_miss\ndirect_cache_miss\nlocal_storage_miss\nlocal_storage_write\n"
    "remote_storage_error\nremote_storage_miss\n"
)
FAR_LATE = "# d.c\ncache_miss\nremote_storage_timeout\nremote_storage_miss\n"


def sccache(**changed: Any) -> str:
    """The output of sccache 0.16, reduced to the values that are read."""
    stats = {
        "cache_hits": {"counts": {"C/C++": 54, "CUDA": 98, "PTX": 98}},
        "cache_misses": {"counts": {"CUDA": 1, "CUBIN": 1, "CUDA (Device code)": 1}},
        "cache_timeouts": 0,
        "cache_read_errors": 0,
        "cache_write_errors": 0,
        "dist_compiles": {},
        "dist_errors": 0,
    }
    location = changed.pop("location", 'Local disk: "/c/sccache"')
    return json.dumps({"stats": {**stats, **changed}, "cache_location": location})


def test_ccache_counts_hits_and_misses() -> None:
    assert compiler_cache.ccache(LOCAL) == {"hits": 2, "misses": 1}
    assert compiler_cache.ccache("") == {"hits": 0, "misses": 0}


def test_ccache_counts_the_shared_store() -> None:
    assert compiler_cache.ccache(LOCAL + FAR_HIT + FAR_GONE + FAR_LATE) == {
        "hits": 3,
        "misses": 3,
        "remote_hits": 1,
        "remote_errors": 1,
        "remote_timeouts": 1,
    }


def test_sccache_counts_files_and_not_the_steps_of_nvcc() -> None:
    assert compiler_cache.sccache(sccache()) == {"hits": 152, "misses": 1}


def test_sccache_counts_the_shared_store() -> None:
    stats = sccache(location="s3, name: b, prefix: /", cache_write_errors=2, cache_timeouts=3)
    assert compiler_cache.sccache(stats) == {
        "hits": 152,
        "misses": 1,
        "remote_hits": 152,
        "remote_errors": 2,
        "remote_timeouts": 3,
    }


def test_sccache_counts_build_servers() -> None:
    stats = sccache(dist_compiles={"10.0.0.2:10501": 4, "10.0.0.3:10501": 3}, dist_errors=1)
    counts = compiler_cache.sccache(stats)
    assert (counts["distributed"], counts["dist_errors"]) == (7, 1)
    assert compiler_cache.sccache(sccache(dist_errors=2))["dist_errors"] == 2


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        ({"hits": 2, "misses": 1}, ", 2 of 3 from the cache"),
        (
            {"hits": 2, "misses": 1, "remote_hits": 1, "remote_errors": 5, "remote_timeouts": 0},
            ", 2 of 3 from the cache, 1 of them from the shared one",
        ),
        (
            {"hits": 0, "misses": 3, "distributed": 9, "dist_errors": 0},
            ", 0 of 3 from the cache, 9 compiled on build servers",
        ),
    ],
)
def test_summary(counts: dict[str, int], text: str) -> None:
    assert compiler_cache.summary(counts) == text


FINE = {"hits": 1, "misses": 0, "remote_hits": 1, "remote_errors": 0, "remote_timeouts": 0}


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        ({"hits": 1, "misses": 0}, ""),
        (FINE, ""),
        ({**FINE, "remote_errors": 4}, "failed 4 times"),
        ({**FINE, "remote_timeouts": 2}, "was late 2 times"),
        ({"dist_errors": 3, "distributed": 1}, "build servers refused or failed 3"),
    ],
)
def test_failures_names_a_store_or_server_that_fails(counts: dict[str, int], text: str) -> None:
    assert text in compiler_cache.failures(counts)
    assert bool(compiler_cache.failures(counts)) is bool(text)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ('{"SchedulerStatus":["http://s/",{"num_servers":2,"num_cpus":2,"in_progress":0}]}', ""),
        ('{"Disabled":"disabled"}', ""),
        ('{"SchedulerStatus":["http://s/",{"num_servers":0,"num_cpus":2}]}', "has none"),
        ('{"NotConnected":["http://s/","connection refused"]}', "connection refused"),
    ],
)
def test_no_servers_names_why_no_build_server_is_used(status: str, text: str) -> None:
    assert text in compiler_cache.no_servers(status)
    assert bool(compiler_cache.no_servers(status)) is bool(text)
