"""Print what this wheel found on this machine: python -m llama_cpp._doctor

Added to llama-cpp-python by blackwheel. Exits with 1 if a wheel for CUDA runs on the CPU.
"""

import importlib
import sys


def report():
    """(lines of text, whether everything is as it should be)."""
    backends = part("_backends")
    lines = ["Libraries:     {}".format(backends.folder())]
    scores = backends.scores()
    can = sorted((name for name in scores if scores[name]), key=scores.get, reverse=True)
    cannot = sorted(name for name in scores if not scores[name])
    lines.append("CPU module:    {}".format(backends.chosen or "the bindings loaded one"))
    lines.append("  can run:     {}".format(", ".join(can) or "none"))
    lines.append("  cannot run:  {}".format(", ".join(cannot) or "none"))
    try:
        gpus = part("_gpu_check")
    except ImportError:
        return [*lines, "CUDA:          this wheel is for the CPU"], True
    lines.append("CUDA:          {}, for {}".format(gpus.CUDA, ", ".join(gpus.ARCHS)))
    library, trouble = gpus.driver()
    usable = trouble is None
    if library and usable:
        lines.append("Driver:        CUDA {}.{}".format(*gpus.cuda_version(library)[1]))
        what = gpus.gpu_trouble(library)
        for name, capability, uuid in gpus.devices(library):
            fits = "has code for it" if gpus.has_code(capability) else "has no code for it"
            lines.append("GPU:           {}, {}.{}, {}: this wheel {}".format(
                name, *capability, uuid, fits))  # fmt: skip
        trouble, usable = (what[:2], what[2]) if what else (None, True)
    for name, (path, how) in part("_cuda_runtime").loaded.items():
        lines.append("Runtime:       {}: {} ({})".format(name, path, how))
    offload = part("llama_cpp").llama_supports_gpu_offload()
    lines.append("Runs on:       {}".format("the GPU" if offload else "the CPU"))
    if trouble:
        lines.append("Problem:       {}".format(trouble[0]))
        lines.append("Fix:           {}".format(trouble[1]))
    return lines, bool(usable and offload)


def part(name):
    """A module of this package; raises ImportError if the wheel does not contain it."""
    return importlib.import_module("{}.{}".format(__package__, name))


if __name__ == "__main__":
    text, well = report()
    print("\n".join(text))
    sys.exit(not well)
