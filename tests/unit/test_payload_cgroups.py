"""The limits of a container, from the text of Linux's files."""

from __future__ import annotations

import pytest

from sessions.payload import cgroups
from sessions.payload.cgroups import Limits

GIB = 1024**3
NEVER = "9223372036854771712\n"  # cgroup v1 without a limit
# Each as a container sees it: its own cgroup is the root of the mount.
V2 = ("0::/\n", "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n")
# Docker with cgroup v1: the path is the machine's, the mount begins there.
V1 = (
    "4:memory:/docker/0123abcd\n3:cpuset:/docker/0123abcd\n1:cpu,cpuacct:/docker/0123abcd\n",
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 /docker/0123abcd /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 /docker/0123abcd /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n",
)
# A job of a scheduler without a container: the limits of all parent cgroups apply.
SLURM = (
    "0::/system.slice/slurm/job_7/step_0\n",
    "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
)


def test_in_a_v2_container_the_files_are_at_the_mount() -> None:
    found = cgroups.places(*V2)
    assert "/sys/fs/cgroup/cpu.max" in found
    assert "/sys/fs/cgroup/memory.max" in found
    assert all(path.count("/") == 4 for path in found)


def test_in_a_v1_container_each_controller_has_a_mount() -> None:
    found = cgroups.places(*V1)
    assert "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us" in found
    assert "/sys/fs/cgroup/memory/memory.limit_in_bytes" in found
    assert not [path for path in found if "docker" in path]
    assert not [path for path in found if path.startswith("/sys/fs/cgroup/cpuset")]


def test_the_parent_cgroups_are_included() -> None:
    found = [path for path in cgroups.places(*SLURM) if path.endswith("/memory.max")]
    assert found == [
        "/sys/fs/cgroup/system.slice/slurm/job_7/step_0/memory.max",
        "/sys/fs/cgroup/system.slice/slurm/job_7/memory.max",
        "/sys/fs/cgroup/system.slice/slurm/memory.max",
        "/sys/fs/cgroup/system.slice/memory.max",
        "/sys/fs/cgroup/memory.max",
    ]


@pytest.mark.parametrize(("cgroup", "mounts"), [("", ""), ("nonsense", "a - b"), (*V2[:1], "")])
def test_a_system_without_cgroups_has_no_limits(cgroup: str, mounts: str) -> None:
    assert cgroups.places(cgroup, mounts) == []
    assert cgroups.limits({}) == cgroups.NONE


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({"a/cpu.max": "200000 100000\n"}, Limits(2.0, None, None)),
        ({"a/cpu.max": "max 100000\n", "a/memory.max": "max\n"}, cgroups.NONE),
        ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000"}, Limits(0.5, None, None)),
        (
            {
                "a/memory.max": f"{8 * GIB}\n",
                "a/memory.current": f"{3 * GIB}\n",
                "a/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            Limits(None, 8192, 6144),
        ),
        (
            {
                "c/cpu.cfs_quota_us": "150000\n",
                "c/cpu.cfs_period_us": "100000\n",
                "m/memory.limit_in_bytes": f"{2 * GIB}\n",
                "m/memory.usage_in_bytes": f"{3 * GIB}\n",
                "m/memory.stat": "inactive_file 0\ntotal_inactive_file 0\n",
                "n/memory.limit_in_bytes": NEVER,
                "n/memory.usage_in_bytes": "1\n",
            },
            Limits(1.5, 2048, 0),
        ),
        ({"c/cpu.cfs_quota_us": "-1\n", "c/cpu.cfs_period_us": "100000\n"}, cgroups.NONE),
        ({"c/cpu.max": "1 0", "m/memory.max": "nonsense"}, cgroups.NONE),
    ],
)
def test_the_narrowest_limit_applies(files: dict[str, str], limits: Limits) -> None:
    assert cgroups.limits(files) == limits


@pytest.mark.parametrize(
    ("processors", "cpus", "cores"),
    [(64, 2.0, 2), (64, 1.5, 2), (64, 0.1, 1), (1, 2.0, 1), (64, None, 64), (0, None, 1)],
)
def test_a_part_of_a_processor_counts_as_one(
    processors: int, cpus: float | None, cores: int
) -> None:
    assert cgroups.bounded(processors, Limits(cpus, None, None)) == cores


@pytest.mark.parametrize(
    ("siblings", "count"),
    [
        ({0: "0,4\n", 4: "0,4\n", 1: "1,5\n", 5: "1,5\n"}, 2),
        ({0: "0-1\n", 2: "2-3\n"}, 2),  # this process may use only these
        ({0: None, 1: None}, 2),  # the kernel does not list them
        ({3: "3\n"}, 1),
    ],
    ids=["threads", "some-of-them", "unknown", "one"],
)
def test_processors_of_one_core_count_once(siblings: dict[int, str | None], count: int) -> None:
    assert cgroups.distinct(siblings) == count


def test_physical_cores_are_within_the_limits_and_no_more_than_processors() -> None:
    assert cgroups.physical(Limits(1.0, None, None)) == 1
    assert 1 <= cgroups.physical(cgroups.NONE) <= cgroups.cores(cgroups.NONE)


def test_without_a_list_half_of_the_processors_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessions.payload.cgroups.sys.platform", "win32")
    monkeypatch.setattr("sessions.payload.cgroups.os.cpu_count", lambda: 12)
    assert cgroups.physical(cgroups.NONE) == 6
    monkeypatch.setattr("sessions.payload.cgroups.os.cpu_count", lambda: 1)
    assert cgroups.physical(cgroups.NONE) == 1
