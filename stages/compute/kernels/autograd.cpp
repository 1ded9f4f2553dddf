// Puts operations that are computed in Rust into autograd's graph: a node whose backward pass is a Rust closure.
// Computes nothing, and knows no operation. The Rust half is kernels/custom.rs.

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

using at::Tensor;

extern "C" {
// Calls the closure with the output's gradient and consumes it. Fills `gradients`, one for each input, with new tensors
// or leaves them null. If the closure panicked, false, and the panic's text in `why`, a buffer of `WHY` bytes.
typedef bool (*Backward)(void* closure, Tensor* gradient, Tensor** gradients, size_t inputs, char* why);
// Destroys a closure that was not called.
typedef void (*Destroy)(void* closure);
}

namespace {

constexpr size_t WHY = 512;

struct RustNode final : public torch::autograd::Node {
  RustNode(void* closure, size_t inputs, Backward backward, Destroy destroy)
      : closure(closure), inputs(inputs), backward(backward), destroy(destroy) {}

  ~RustNode() override { release_variables(); }

  void release_variables() override {
    if (closure != nullptr) destroy(closure);
    closure = nullptr;
  }

  std::string name() const override { return "RustNode"; }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& outputs) override {
    torch::autograd::variable_list gradients(inputs);
    if (!outputs[0].defined()) return gradients;
    TORCH_CHECK(closure != nullptr, "the backward pass of a kernel runs once");
    TORCH_CHECK(!at::GradMode::is_enabled(), "kernels have no second derivatives");
    void* taken = closure;
    closure = nullptr;
    std::vector<Tensor*> found(inputs, nullptr);
    char why[WHY] = {};
    const bool finished = backward(taken, &outputs[0], found.data(), inputs, why);
    for (size_t n = 0; n < inputs; n++) {
      if (found[n] == nullptr) continue;
      gradients[n] = std::move(*found[n]);
      delete found[n];
    }
    TORCH_CHECK(finished, why);
    return gradients;
  }

  void* closure;
  const size_t inputs;
  const Backward backward;
  const Destroy destroy;
};

}  // namespace

extern "C" bool agrpo_records_gradients() { return at::GradMode::is_enabled(); }

// Makes `output` the result of `inputs` with this backward pass. Takes the closure. False if libtorch refused.
extern "C" bool agrpo_attach(Tensor** inputs, size_t count, Tensor* output, void* closure, Backward backward,
                             Destroy destroy) try {
  std::shared_ptr<RustNode> node(new RustNode(closure, count, backward, destroy), torch::autograd::deleteNode);
  torch::autograd::edge_list edges;
  for (size_t n = 0; n < count; n++) edges.push_back(torch::autograd::impl::gradient_edge(*inputs[n]));
  node->set_next_edges(std::move(edges));
  torch::autograd::set_history(*output, node);
  return true;
} catch (const std::exception&) {
  return false;
}
