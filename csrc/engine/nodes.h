// The nodes of a plan besides chains.
#ifndef WHIT_NODES_H
#define WHIT_NODES_H

#include "network.h"
#include "node.h"

namespace whit {

// A value in another type, its order kept.
class ConvertType : public Node {
  public:
    ConvertType(const KernelTable &kernels, Grid grid, Type from, Type to, size_t source,
                size_t result)
        : kernels_(kernels), grid_(grid), from_(from), to_(to), source_(source), result_(result) {}
    void run(Frame &frame, Call &call) const override;
    ScratchSize scratch() const override;

  private:
    const KernelTable &kernels_;
    Grid grid_;
    Type from_, to_;
    size_t source_, result_;
};

// [channel, height * width] to [height * width, channel], or back.
class ConvertOrder : public Node {
  public:
    ConvertOrder(const KernelTable &kernels, size_t rows, size_t columns, size_t width,
                 size_t source, size_t result)
        : kernels_(kernels), rows_(rows), columns_(columns), width_(width), source_(source),
          result_(result) {}
    void run(Frame &frame, Call &call) const override;

  private:
    const KernelTable &kernels_;
    size_t rows_, columns_, width_, source_, result_;
};

// Pools of windows that overlap or are padded; channels last.
class Pool : public Node {
  public:
    Pool(const KernelTable &kernels, const Step &step, const Shape &input, Type type,
         size_t source, size_t result)
        : kernels_(kernels), step_(step), input_(input), type_(type), source_(source),
          result_(result) {}
    void run(Frame &frame, Call &call) const override;

  private:
    void window(const uint8_t *image, size_t y, size_t x, uint8_t *out) const;
    const KernelTable &kernels_;
    Step step_;
    Shape input_;
    Type type_;
    size_t source_, result_;
};

// Mean, maximum or sum over axes. Planar; or, over height and width, channels last.
class Reduce : public Node {
  public:
    Reduce(const KernelTable &kernels, const Step &step, const Shape &input, Form form,
           size_t source, size_t result);
    void run(Frame &frame, Call &call) const override;

  private:
    const KernelTable &kernels_;
    size_t mode_;
    Type type_;
    size_t axes_[4], steps_[4];  // of the result, 0 along axes that go
    size_t results_ = 1, count_ = 1;
    size_t source_, result_;
};

class Softmax : public Node {
  public:
    Softmax(const KernelTable &kernels, const Step &step, size_t source, size_t result);
    void run(Frame &frame, Call &call) const override;
    ScratchSize scratch() const override;

  private:
    const KernelTable &kernels_;
    size_t outer_ = 1, length_, inner_ = 1;
    bool logarithm_;
    size_t source_, result_;
};

// layer_norm and group_norm; planar.
class Norm : public Node {
  public:
    Norm(const Step &step, size_t source, size_t result);
    void run(Frame &frame, Call &call) const override;

  private:
    size_t rows_, length_;      // of one sample
    size_t rows_per_weight_ = 0;  // group_norm: groups; 0: one weight for each place of a row
    size_t per_channel_ = 1;    // numbers of one channel
    std::vector<float> weight_, shift_;
    float epsilon_;
    size_t source_, result_;
};

class Embedding : public Node {
  public:
    Embedding(const Step &step, size_t indices, Type type, size_t source, size_t result)
        : weight_(step.weight), indices_(indices), type_(type), source_(source), result_(result) {}
    void run(Frame &frame, Call &call) const override;

  private:
    Weight weight_;
    size_t indices_;
    Type type_;
    size_t source_, result_;
};

class Transpose : public Node {
  public:
    Transpose(const Step &step, const Shape &input, size_t width, size_t source, size_t result);
    void run(Frame &frame, Call &call) const override;

  private:
    size_t axes_[4], steps_[4], width_, elements_;
    size_t source_, result_;
};

// Pieces of two values in turns.
class Concat : public Node {
  public:
    Concat(size_t turns, size_t first_bytes, size_t second_bytes, size_t first, size_t second,
           size_t result)
        : turns_(turns), first_bytes_(first_bytes), second_bytes_(second_bytes), first_(first),
          second_(second), result_(result) {}
    void run(Frame &frame, Call &call) const override;

  private:
    size_t turns_, first_bytes_, second_bytes_, first_, second_, result_;
};

// A border around images; a pixel is some bytes, and there are `planes` images a sample.
class Border : public Node {
  public:
    Border(size_t planes, Grid input, Grid output, size_t top, size_t left,
           std::vector<uint8_t> pixel, size_t source, size_t result)
        : planes_(planes), input_(input), output_(output), top_(top), left_(left),
          pixel_(std::move(pixel)), source_(source), result_(result) {}
    void run(Frame &frame, Call &call) const override;

  private:
    size_t planes_;
    Grid input_, output_;
    size_t top_, left_;
    std::vector<uint8_t> pixel_;
    size_t source_, result_;
};

// add and multiply where axes of size 1 are repeated; planar floats.
class Broadcast : public Node {
  public:
    Broadcast(const Step &step, const Shape &other, size_t source, size_t second, size_t result);
    void run(Frame &frame, Call &call) const override;

  private:
    bool multiply_;
    size_t axes_[4], steps_[4], elements_, other_elements_ = 1;
    size_t source_, other_, result_;
};

// Scores of a first network, or the mean of the networks that a situation asks for.
class RouteNode : public Node {
  public:
    // bodies: plans of the members; sample_bytes: of the value that they read.
    RouteNode(const KernelTable &kernels, const Step &step,
              std::vector<std::unique_ptr<Plan>> bodies, size_t first_body, size_t sample_bytes,
              size_t scores, size_t input, size_t gathered, size_t answers, size_t situations,
              size_t result);
    ~RouteNode() override;
    void run(Frame &frame, Call &call) const override;
    ScratchSize scratch() const override;

  private:
    size_t situation(const float *scores, float *chances, float *cooled) const;
    void softmax(const float *scores, float *chances) const;
    const KernelTable &kernels_;
    Step step_;
    std::vector<std::unique_ptr<Plan>> bodies_;
    size_t first_body_, sample_bytes_, classes_;
    size_t scores_, input_, gathered_, answers_, situations_, result_;
};

}  // namespace whit

#endif  // WHIT_NODES_H
