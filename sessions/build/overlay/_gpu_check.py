"""Load ggml's CUDA module if a GPU can run this wheel, and say why if none can.

Added to llama-cpp-python by blackwheel. If there is a problem, one RuntimeWarning names it and the
wheel runs on the CPU. With BLACKWHEEL_REQUIRE_GPU=1 it is an ImportError.
"""

import ctypes
import functools
import importlib
import os
import sys
import threading
import warnings

# Filled in when the wheel is built.
CUDA = "@CUDA@"
MINIMUM_DRIVER = "@MINIMUM_DRIVER@"
BUILT_FOR = "@ARCHS@"  # in the notation of CMAKE_CUDA_ARCHITECTURES

ARCHS = BUILT_FOR.split()
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
DRIVERS = "https://www.nvidia.com/drivers"
REQUIRE = "BLACKWHEEL_REQUIRE_GPU"
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE; cuda.h, like the two attributes
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
# The functions of the bindings that need to know the devices, by the start of their names.
ASKING = (
    "llama_backend_init",
    "llama_load_model",
    "llama_max_devices",
    "llama_model_default_params",
    "llama_model_load",
    "llama_numa_init",
    "llama_params_fit",
    "llama_print_system_info",
    "llama_supports_",
    "ggml_backend_",
)


def watch():
    """Check the driver now, and the GPUs before the first model.

    Not both on import: asking for the GPUs starts the driver. That takes time, a process that is
    forked afterwards cannot use the driver, and CUDA_VISIBLE_DEVICES is not read again. Raises
    ImportError if a GPU is required and none can be used.
    """
    library, trouble = driver()
    if trouble:
        tell(*trouble)
        return
    if os.environ.get(REQUIRE, "0") not in ("", "0"):
        start(library)
        return
    bindings = importlib.import_module(__package__ + ".llama_cpp")
    waiting, lock = [library], threading.Lock()

    def first(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            with lock:  # another thread waits until the module is loaded
                while waiting:
                    start(waiting.pop())
            return function(*args, **kwargs)

        return call

    for name, function in list(vars(bindings).items()):
        if name.startswith(ASKING) and callable(function) and not isinstance(function, type):
            setattr(bindings, name, first(function))


def start(library):
    """Check the GPUs, and load the CUDA module if one of them can run it."""
    what, fix, usable = gpu_trouble(library) or ("", "", True)
    if what:
        tell(what, fix, required=not usable)
    if usable:
        backends = importlib.import_module(__package__ + "._backends")
        path = backends.module("cuda")
        # Libraries from another folder may lack it, and some bindings load the modules themselves.
        if backends.chosen and os.path.isfile(path):
            backends.register(path)


def driver():
    """(the driver's library, None), or (None, (what, fix)) if it cannot run this wheel."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError as error:
        return None, (
            "there is no NVIDIA driver here ({}), so everything runs on the CPU".format(error),
            "if this machine has an NVIDIA GPU, install a driver of release {} or newer: {}; a "
            "container needs access to the GPU".format(MINIMUM_DRIVER, DRIVERS),
        )
    return library, driver_trouble(library)


def tell(what, fix, required=True):
    """Issue one warning that says what is wrong and how to fix it.

    Raises ImportError instead if a GPU is required.
    """
    text = "llama_cpp: {}. Fix: {}".format(what, fix)
    if required and os.environ.get(REQUIRE, "0") not in ("", "0"):
        raise ImportError("{} ({} is set)".format(text, REQUIRE))
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def driver_trouble(library):
    """(what, fix) if the driver is a stub or too old; else None. Does not start the driver."""
    code, has = cuda_version(library)
    if code != 0:
        return (
            "{} is a stub and not an NVIDIA driver (cuDriverGetVersion: {}), so everything runs "
            "on the CPU".format(DRIVER, code),
            "if this machine has an NVIDIA GPU, remove folders named stubs from the library search "
            "path, and install a driver of release {} or newer: {}".format(MINIMUM_DRIVER, DRIVERS),
        )
    needs = tuple(int(part) for part in CUDA.split("."))
    if any(not arch.endswith("-virtual") for arch in ARCHS):
        needs = (needs[0], 0)  # machine code runs with every driver of the major version
    if has < needs:
        return (
            "the NVIDIA driver supports CUDA {}.{}, and this wheel needs CUDA {}.{} (driver "
            "release {} or newer), so everything runs on the CPU".format(
                *has, *needs, MINIMUM_DRIVER
            ),
            "install a newer driver: {}".format(DRIVERS),
        )
    return None


def cuda_version(library):
    """(what cuDriverGetVersion returns, the CUDA version that the driver supports)."""
    number = ctypes.c_int(0)
    code = getattr(library, "cuDriverGetVersion", lambda _: "missing")(ctypes.byref(number))
    return code, (number.value // 1000, number.value % 1000 // 10)  # 13010: 13.1


def gpu_trouble(library):
    """(what is wrong with the GPUs, the fix, whether one can be used); None if all is well."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    code = library.cuInit(0)
    gpus = devices(library) if code == 0 else []
    fitting = [uuid for _, capability, uuid in gpus if has_code(capability)]
    others = ", ".join(
        "{} (compute capability {}.{})".format(name, *capability)
        for name, capability, _ in gpus
        if not has_code(capability)
    )
    code_for = "this wheel has code for CUDA architecture {}".format(", ".join(ARCHS))
    if not gpus and code in (0, NO_DEVICE) and hidden is not None:
        return (
            "CUDA_VISIBLE_DEVICES={!r} hides every GPU, so everything runs on the CPU".format(
                hidden
            ),
            "clear that variable to use a GPU",
            False,
        )
    if not gpus:
        return (
            "the NVIDIA driver finds no GPU (cuInit: {}), so everything runs on the CPU".format(
                code
            ),
            "see what nvidia-smi shows; a container needs access to the GPU",
            False,
        )
    if not fitting:
        return (
            "no GPU here can run this wheel: {}, and this machine has {}, so everything runs on "
            "the CPU".format(code_for, others),
            "install a wheel for this GPU",
            False,
        )
    if others:
        return (
            "{}, and this machine also has {}. A model that uses that GPU aborts".format(
                code_for, others
            ),
            "hide it: CUDA_VISIBLE_DEVICES={}".format(",".join(fitting)),
            True,
        )
    return None


def devices(library):
    """(name, (major, minor), UUID) of each GPU that the process can see."""
    count = ctypes.c_int(0)
    library.cuDeviceGetCount(ctypes.byref(count))
    get_uuid = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    found = []
    for index in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        numbers, uuid = (ctypes.c_int * 2)(), (ctypes.c_ubyte * 16)()
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceGetName(name, len(name), device)
        for number, attribute in enumerate(CAPABILITY):
            value = ctypes.c_int(0)
            library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            numbers[number] = value.value
        get_uuid(ctypes.byref(uuid), device)
        hexadecimal = bytes(uuid).hex()
        ends = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
        named = "GPU-" + "-".join(hexadecimal[start:end] for start, end in ends)
        found.append((name.value.decode("utf-8", "replace"), tuple(numbers), named))
    return found


def has_code(capability):
    """Whether a GPU can run the code of this wheel (CUDA C++ Programming Guide, compatibility).

    Machine code runs on GPUs of its major and of the same or a newer minor capability, PTX also on
    every newer GPU. Code with the suffix a runs only on its own capability, with f only on GPUs of
    its major.
    """
    for arch in ARCHS:
        number, _, kind = arch.partition("-")
        digits = number.rstrip("af")
        built = (int(digits[:-1]), int(digits[-1]))
        of_major = capability[0] == built[0] and capability[1] >= built[1]
        if number.endswith("a"):
            fits = capability == built
        elif number.endswith("f") or kind == "real":
            fits = of_major
        else:
            fits = capability >= built
        if fits:
            return True
    return False
