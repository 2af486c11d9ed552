// The compiler reads this before upstream's test-backend-ops.cpp, which is unchanged.
//
// It makes the test a library that exports upstream's main. It also makes a run repeatable: random
// numbers come from the seed BLACKWHEEL_SEED, and the number of threads is fixed (on one core,
// 0.3.16 quantizes nothing, so all tensors are zero and agree). If BLACKWHEEL_LIMIT is set, it
// limits random numbers (upstream draws the inputs of activations from -150 to 150, where GELU and
// ReLU differ by less than the bound of the test).
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <regex>
#include <thread>
#ifdef _WIN32
#  define BLACKWHEEL_EXPORT __declspec(dllexport)
#else
#  define BLACKWHEEL_EXPORT __attribute__((visibility("default")))
#endif
extern "C" BLACKWHEEL_EXPORT int blackwheel_test(int, char **);

namespace std {
inline double blackwheel_number(const char * name, double otherwise) {
    const char * text = std::getenv(name);
    return text ? std::strtod(text, nullptr) : otherwise;
}

struct blackwheel_device {  // a counter with mixed bits instead of numbers from the system
    using result_type = unsigned;
    static constexpr unsigned min() { return 0; }
    static constexpr unsigned max() { return ~0u; }
    unsigned operator()() {
        static std::atomic<unsigned> count{unsigned(blackwheel_number("BLACKWHEEL_SEED", 1))};
        unsigned x = count += 0x9e3779b9u;
        x ^= x >> 16; x *= 0x85ebca6bu; x ^= x >> 13; x *= 0xc2b2ae35u;
        return x ^ (x >> 16);
    }
};

struct blackwheel_thread : thread {
    using thread::thread;
    static unsigned hardware_concurrency() noexcept { return 2; }
};

template <class T> struct blackwheel_uniform : uniform_real_distribution<T> {
    static T cut(T x) {
        static const T limit = T(blackwheel_number("BLACKWHEEL_LIMIT", 1e30));
        return x > limit ? limit : x < -limit ? -limit : x;
    }
    blackwheel_uniform(T min, T max) : uniform_real_distribution<T>(cut(min), cut(max)) {}
};
}  // namespace std

namespace {  // unbuffered, so that no output is lost in a crash
struct blackwheel_unbuffered { blackwheel_unbuffered() { std::setvbuf(stdout, nullptr, _IONBF, 0); } };
const blackwheel_unbuffered blackwheel_unbuffered_now;
}  // namespace
#define main blackwheel_test
#define random_device blackwheel_device
#define thread blackwheel_thread
#define uniform_real_distribution blackwheel_uniform
