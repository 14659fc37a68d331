// Turns a scope of a network into a plan: which steps run together, in which memory, in which form.
#ifndef WHIT_PLANNER_H
#define WHIT_PLANNER_H

#include <map>
#include <set>

#include "chain.h"
#include "nodes.h"
#include "plan.h"

namespace whit {

class Planner {
  public:
    Planner(const Network &network, size_t own, Type own_type, size_t samples,
            const KernelTable &kernels, Plan &plan);
    void plan(size_t first, size_t last);

  private:
    struct Held {
        Form form;
        size_t buffer;
    };
    // What is known of a chain while its steps are collected.
    struct Growth {
        size_t head, last;            // steps
        bool whole = false;           // the block holds int32
        Order order = Order::kPlanar;
        bool pools_allowed = false;
        std::vector<size_t> steps;    // after the head

        // The value that a step of the chain takes over from the one before it.
        size_t value_before(size_t index) const {
            size_t before = head;
            for (size_t own : steps) {
                if (own == index) break;
                before = own;
            }
            return before + 1;
        }
    };

    const Step &step(size_t index) const { return network_.steps[index]; }
    const Shape &shape(size_t value) const;
    Domain domain(size_t value) const;
    size_t new_buffer(size_t sample_bytes);
    void add(std::unique_ptr<Node> node, std::initializer_list<size_t> reads, size_t write);
    void hold(size_t value, Form form, size_t buffer) { held_[value].push_back({form, buffer}); }
    size_t require(size_t value, Form form);
    size_t convert(size_t value, const Held &from, Form to);
    Form primary(size_t value);
    void adopt_alias(size_t value);

    void count_uses(size_t first, size_t last);
    bool starts_chain(size_t index);
    void grow(size_t index);
    bool joins(Growth &growth, size_t index);
    void materialise(const Growth &growth);
    void add_linear(Chain &chain, const Step &step);
    void add_conv2d(Chain &chain, const Step &step);
    void add_load(Chain &chain, const Growth &growth);
    void finish_head(Chain &chain, const Step &step, bool &whole);
    void add_stages(Chain &chain, const Growth &growth, const Step &step, bool &whole);
    void add_threshold(Chain &chain, const Growth &growth, const Step &step, bool &whole);
    Stage constants(Stage::Operation operation, const Growth &growth, const Step &step,
                    const Constants &constants) const;
    Per per(Granularity granularity, const Growth &growth, const Shape &shape,
            size_t &rows_per_constant) const;
    void finish_store(Chain &chain, const Growth &growth, bool whole);
    Type wanted_type(size_t value);
    void add_other(size_t index, std::vector<size_t> &members);
    void add_route(size_t index, const std::vector<size_t> &members);
    void add_concat(size_t index);
    void add_border(size_t index);
    void add_pool(size_t index);
    void add_reduce(size_t index);

    const Network &network_;
    const size_t own_;
    const size_t samples_;
    const KernelTable &kernels_;
    Plan &plan_;
    std::map<size_t, std::vector<Held>> held_;
    std::map<size_t, size_t> alias_;
    std::map<size_t, size_t> uses_, reader_;
    std::map<size_t, Growth> pending_;   // by the step at which the chain runs
    std::set<size_t> claimed_;           // steps of chains
    std::vector<size_t> reads_;          // of each buffer
};

}  // namespace whit

#endif  // WHIT_PLANNER_H
