// Runs the simulation top under Verilator, driven by commands on standard input.
//
// One command is a letter and little-endian 32-bit words; answers are little-endian words or bytes.
//   W address count bytes   writes DRAM                     no answer
//   R address count         reads DRAM                      the bytes
//   w register value        writes a register               no answer
//   r register              reads a register                one word
//   s dram local            sets the stall thresholds       no answer
//   g limit                 runs until the accelerator stops or `limit` cycles have passed
//                           answer: 1 if it stopped, number of digests, then for each: engine, digest
//   p window                makes later runs record a profile, in windows of so many cycles; 0: none
//   t                       answer: number of spans, number of windows, the spans, the windows
//                           (profiler.h) of the last run
//   q                       ends the program
// A threshold t blocks a port in a cycle with probability t / 256.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vsimulation_top.h"
#include "Vsimulation_top___024root.h"
#include "profiler.h"
#include "verilated.h"
#ifdef GATEFORMER_TRACE
#include "verilated_fst_c.h"
#endif

namespace {

struct Digest {
    uint32_t engine;
    uint32_t value;
};

class Simulation {
  public:
    explicit Simulation(const char *trace_file) {
        top_->clk = 0;
        top_->rst = 1;
#ifdef GATEFORMER_TRACE
        Verilated::traceEverOn(true);
        trace_ = std::make_unique<VerilatedFstC>();
        top_->trace(trace_.get(), 99);
        trace_->open(trace_file);
#else
        (void)trace_file;
#endif
        for (int i = 0; i < 4; ++i) cycle();
        top_->rst = 0;
        cycle();
    }

    ~Simulation() {
        top_->final();
#ifdef GATEFORMER_TRACE
        trace_->close();
#endif
    }

#ifdef GATEFORMER_NO_DRAM
    void write_dram(uint32_t, uint8_t) {}
    uint8_t read_dram(uint32_t) const { return 0; }
#else
    void write_dram(uint32_t address, uint8_t byte) {
        auto &word = top_->rootp->DRAM_ARRAY[address / DRAM_BYTES];
        const unsigned shift = 8 * (address % DRAM_BYTES);
        word = (word & ~(static_cast<uint64_t>(0xff) << shift)) |
               (static_cast<uint64_t>(byte) << shift);
    }

    uint8_t read_dram(uint32_t address) const {
        const uint64_t word = top_->rootp->DRAM_ARRAY[address / DRAM_BYTES];
        return static_cast<uint8_t>(word >> (8 * (address % DRAM_BYTES)));
    }
#endif

    void write_register(uint32_t address, uint32_t value) { access(address, true, value); }

    uint32_t read_register(uint32_t address) {
        access(address, false, 0);
        top_->response_ready = 1;
        top_->eval();
        while (!top_->response_valid) cycle();
        const uint32_t value = top_->response_payload;
        cycle();
        top_->response_ready = 0;
        return value;
    }

    void set_stalls(uint32_t dram, uint32_t local) {
        top_->dram_stall = dram;
        top_->local_stall = local;
    }

    // Runs until `running` falls.
    bool run(uint32_t limit) {
        digests_.clear();
        profiler_.clear();
        for (uint32_t i = 0; i < limit; ++i) {
            cycle();
            if (!top_->running) return true;
            if (profiler_.enabled()) profiler_.step(probe());
        }
        return false;
    }

    const std::vector<Digest> &digests() const { return digests_; }
    Profiler &profiler() { return profiler_; }

  private:
    void cycle() {
        top_->clk = 1;
        top_->eval();
        dump();
        // Outputs now hold for the whole cycle; registers of the monitor were clocked in it.
        if (top_->retire) collect();
        top_->clk = 0;
        top_->eval();
        dump();
    }

    void dump() {
#ifdef GATEFORMER_TRACE
        trace_->dump(time_++);
#endif
    }

    Probe probe() const {
        return {top_->probe_waiting, top_->probe_active, top_->probe_completed,
                top_->probe_operand, top_->probe_memory, top_->probe_dram, top_->probe_drain,
                top_->probe_step != 0, top_->probe_beats, top_->probe_occupied != 0};
    }

    void collect() {
        for (uint32_t engine = 0; engine < 3; ++engine) {
            if ((top_->retire >> engine) & 1) {
                const uint32_t value = engine == 0   ? top_->digest_0
                                       : engine == 1 ? top_->digest_1
                                                     : top_->digest_2;
                digests_.push_back({engine, value});
            }
        }
    }

    void access(uint32_t address, bool write, uint32_t value) {
        top_->request_payload = (static_cast<uint64_t>(value) << 7) |
                                 (static_cast<uint64_t>(write) << 6) | (address & 0x3f);
        top_->request_valid = 1;
        top_->eval();
        while (!top_->request_ready) cycle();
        cycle();
        top_->request_valid = 0;
        top_->eval();
    }

    std::unique_ptr<Vsimulation_top> top_ = std::make_unique<Vsimulation_top>();
    std::vector<Digest> digests_;
    Profiler profiler_;
#ifdef GATEFORMER_TRACE
    std::unique_ptr<VerilatedFstC> trace_;
    uint64_t time_ = 0;
#endif
};

bool read_words(uint32_t *words, size_t count) {
    return std::fread(words, sizeof(uint32_t), count, stdin) == count;
}

void answer(uint32_t word) { std::fwrite(&word, sizeof word, 1, stdout); }

}  // namespace

int main(int argc, char **argv) {
    Verilated::commandArgs(argc, argv);
    Simulation simulation(argc > 1 ? argv[1] : "");
    for (int letter = std::getchar(); letter != EOF && letter != 'q'; letter = std::getchar()) {
        uint32_t w[2] = {0, 0};
        const bool one = letter == 'r' || letter == 'g' || letter == 'p';
        const size_t count = letter == 't' ? 0 : one ? 1 : 2;
        if (!read_words(w, count)) return 1;
        switch (letter) {
            case 'W':
                for (uint32_t i = 0; i < w[1]; ++i)
                    simulation.write_dram(w[0] + i, static_cast<uint8_t>(std::getchar()));
                break;
            case 'R':
                for (uint32_t i = 0; i < w[1]; ++i) std::putchar(simulation.read_dram(w[0] + i));
                break;
            case 'w':
                simulation.write_register(w[0], w[1]);
                break;
            case 'r':
                answer(simulation.read_register(w[0]));
                break;
            case 's':
                simulation.set_stalls(w[0], w[1]);
                break;
            case 'g': {
                answer(simulation.run(w[0]) ? 1 : 0);
                answer(static_cast<uint32_t>(simulation.digests().size()));
                for (const Digest &digest : simulation.digests()) {
                    answer(digest.engine);
                    answer(digest.value);
                }
                break;
            }
            case 'p':
                simulation.profiler().set_window(w[0]);
                break;
            case 't': {
                const auto &spans = simulation.profiler().spans();
                const auto &windows = simulation.profiler().windows();
                answer(static_cast<uint32_t>(spans.size()));
                answer(static_cast<uint32_t>(windows.size()));
                std::fwrite(spans.data(), sizeof(Span), spans.size(), stdout);
                std::fwrite(windows.data(), sizeof(Window), windows.size(), stdout);
                break;
            }
            default:
                return 1;
        }
        std::fflush(stdout);
    }
    return 0;
}
