#include "autograd/checkpoint.h"

#include "autograd/engine.h"

namespace lh {

Variable checkpoint(const std::function<Variable(std::span<const Variable>)>& function,
                    std::vector<Variable> inputs) {
  if (!grad_enabled()) return function(inputs);
  Tensor output;
  LeafLog log;
  {
    const GradMode off(false);
    output = function(inputs).value();
  }
  std::vector<Tensor> kept;
  for (const Variable& input : inputs) kept.push_back(input.value());

  auto backward_function = [function, kept](Gradients& gradients) {
    const GradMode on(true);
    std::vector<Variable> again;
    for (size_t i = 0; i < kept.size(); ++i)
      again.push_back(gradients.wants(static_cast<int>(i))
                          ? Variable::leaf(kept[i], kept[i].dtype())
                          : Variable(kept[i]));
    backward(function(again), gradients.output());
    for (size_t i = 0; i < kept.size(); ++i)
      if (gradients.wants(static_cast<int>(i)) && again[i].grad().defined())
        gradients.add(static_cast<int>(i), again[i].grad());
  };
  return record_outputs("checkpoint", inputs, {output}, backward_function, nullptr,
                        log.leaves.empty() ? nullptr : &log.leaves)
      .front();
}

}  // namespace lh
