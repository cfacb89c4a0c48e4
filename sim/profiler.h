// Turns what the accelerator's probe shows in every cycle into one span an instruction and engine.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

// Why an engine stands still, in the order of gateformer.compiler.timeline.Reason.
enum Reason { kQueue, kSemaphore, kOperand, kMemory, kDram, kDrain, kReasons };

// Bit i is engine i.
struct Probe {
    uint32_t waiting, active, completed, operand, memory, dram, drain;
    bool step;
    uint32_t beats;
    bool occupied;
};

struct Span {
    uint32_t engine, ready, start, end;
    std::array<uint32_t, kReasons> waits;
};

// Sums over some cycles: beats of DRAM, cycles in which its bus was taken, steps of the array.
struct Window {
    uint32_t beats, occupied, steps;
};

class Profiler {
  public:
    // Cycles of a window; 0 turns profiling off.
    void set_window(uint32_t cycles) { window_ = cycles; }
    bool enabled() const { return window_ != 0; }

    void clear() {
        now_ = 0;
        spans_.clear();
        windows_.clear();
        heads_ = {};
    }

    void step(const Probe &probe) {
        for (uint32_t engine = 0; engine < kEngines; ++engine) observe(engine, probe);
        if (now_ % window_ == 0) windows_.push_back({0, 0, 0});
        Window &window = windows_.back();
        window.beats += probe.beats;
        window.occupied += probe.occupied;
        window.steps += probe.step;
        ++now_;
    }

    const std::vector<Span> &spans() const { return spans_; }
    const std::vector<Window> &windows() const { return windows_; }

  private:
    static constexpr uint32_t kEngines = 7;

    // The instruction that an engine holds or awaits.
    struct Head {
        bool held, started;
        Span span;
    };

    void observe(uint32_t engine, const Probe &probe) {
        const uint32_t bit = 1u << engine;
        Head &head = heads_[engine];
        const bool active = probe.active & bit;
        if (!head.held && (active || (probe.waiting & bit))) {
            head.held = true;
            head.span.ready = now_;
        }
        if (active && !head.started) {
            head.started = true;
            head.span.start = now_;
        }
        if (!head.held) {
            ++head.span.waits[kQueue];
        } else if (!active) {
            ++head.span.waits[kSemaphore];
        } else if (probe.memory & bit) {
            ++head.span.waits[kMemory];
        } else if (probe.drain & bit) {
            ++head.span.waits[kDrain];
        } else if (probe.operand & bit) {
            ++head.span.waits[kOperand];
        } else if (probe.dram & bit) {
            ++head.span.waits[kDram];
        }
        if (probe.completed & bit) {
            head.span.engine = engine;
            head.span.end = now_ + 1;
            spans_.push_back(head.span);
            head = {};
        }
    }

    uint32_t window_ = 0;
    uint32_t now_ = 0;
    std::array<Head, kEngines> heads_{};
    std::vector<Span> spans_;
    std::vector<Window> windows_;
};
