// Plans of jobs of 64 processes against what has to move, worked out here from the sizes in the recipe alone.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <cstdlib>

#include "runtime/memory.h"
#include "train/plan.h"

using namespace lh;

namespace {

constexpr int kWorld = 64;
constexpr int64_t kVocabulary = 512, kHidden = 256, kInner = 512, kLayers = 6, kFullLayers = 3;
constexpr int64_t kHeads = 64, kKvHeads = 64, kHeadDim = 8;
constexpr int64_t kWindow = 16;  // reaches no farther than the neighbouring piece
constexpr int64_t kTokens = 2048;  // of a sequence: 32 for each of 64 processes
constexpr int64_t kRowBytes = 4 * kKvHeads * kHeadDim;  // of keys, or of values, or of queries, in f32

/// Embedding (also the head), q, k, v, o, three matrices of the MLP, two norms a layer and the last one.
constexpr int64_t kParameters =
    kVocabulary * kHidden +
    kLayers * (4 * kHidden * kHeads * kHeadDim + 3 * kHidden * kInner + 2 * kHidden) + kHidden;
constexpr int64_t kTensors = 1 + kLayers * 9 + 1;

/// Layers alternate between a window and everything. Each micro-batch is one sequence.
Recipe recipe_of(int64_t context, const std::string& layout, const std::string& scheme,
                 int64_t sequences) {
  Recipe recipe;
  recipe.model.hidden_size = kHidden;
  recipe.model.intermediate_size = kInner;
  recipe.model.num_layers = kLayers;
  recipe.model.num_heads = kHeads;
  recipe.model.num_kv_heads = kKvHeads;
  recipe.model.head_dim = kHeadDim;
  recipe.model.mixers = {
      {"local", {.kind = "sliding_window", .window = kWindow, .context = "gather"}},
      {"full", {.kind = "softmax", .context = scheme}}};
  recipe.model.schedule = {"local", "full"};
  recipe.data.seq_tokens = kTokens;
  recipe.schedule.batch_tokens = sequences * kTokens;
  recipe.schedule.steps = 1;
  recipe.precision.micro_batch_tokens = kTokens;
  recipe.parallel.context = context;
  recipe.parallel.layout = layout;
  return recipe;
}

/// Bytes of the rows that match; the collective must be the one named.
int64_t sent(const RecipePlan& plan, const std::string& mixer, const std::string& what,
             const std::string& collective, bool backward = false) {
  int64_t bytes = 0;
  for (const PlannedTraffic& row : plan.sent)
    if (row.mixer == mixer && row.what == what && row.backward == backward) {
      CHECK(row.collective == collective);
      CHECK(row.layers == (mixer.empty() ? 0 : kFullLayers));
      bytes += row.bytes;
    }
  return bytes;
}

int64_t of_mixers(const RecipePlan& plan) {
  int64_t bytes = 0;
  for (const PlannedTraffic& row : plan.sent) bytes += row.mixer.empty() ? 0 : row.bytes;
  return bytes;
}

RecipePlan plan_of(const Recipe& recipe, int rank, DType compute = DType::kF32,
                   Device device = kMetaCpuDevice) {
  return plan_recipe(recipe, kWorld, rank, device, compute, kVocabulary);
}

}  // namespace

TEST_CASE("64 data groups send each other's gradients and parameters, and nothing of a sequence") {
  for (const bool overlap : {true, false})
    for (const int rank : {0, 1, 63}) {
      Recipe recipe = recipe_of(1, "zigzag", "gather", 128);
      recipe.parallel.overlap = overlap;
      const RecipePlan plan = plan_of(recipe, rank);
      CHECK(plan.data == 64);
      CHECK(plan.micro_batches == 2);
      CHECK(plan.parameters == kParameters);
      // Every other owner's 63 / 64 of the f32 gradients; its own 64th of the parameters to 63 others.
      CHECK(sent(plan, "", "gradients", "reduce_scatter") == 4 * kParameters / 64 * 63);
      CHECK(sent(plan, "", "parameters", "all_gather") == 4 * kParameters / 64 * 63);
      CHECK(of_mixers(plan) == 0);
      // Weights, gradients of all, two f32 moments of a 64th.
      CHECK(plan.memory.now[static_cast<size_t>(MemoryOwner::kWeights)] >= 4 * kParameters);
      CHECK(plan.memory.now[static_cast<size_t>(MemoryOwner::kGradients)] == 4 * kParameters);
      const int64_t optimizer = plan.memory.now[static_cast<size_t>(MemoryOwner::kOptimizer)];
      CHECK(optimizer >= 8 * kParameters / 64);
      CHECK(optimizer < 8 * kParameters / 64 + 256);
    }
}

TEST_CASE("64 processes that compute in bf16 hold a 64th of the masters and send parameters in bf16") {
  const RecipePlan plan = plan_of(recipe_of(1, "zigzag", "gather", 64), 5, DType::kBF16);
  CHECK(sent(plan, "", "gradients", "reduce_scatter") == 4 * kParameters / 64 * 63);
  CHECK(sent(plan, "", "parameters", "all_gather") == 2 * kParameters / 64 * 63);
  const int64_t weights = plan.memory.now[static_cast<size_t>(MemoryOwner::kWeights)];
  CHECK(weights == 2 * kParameters + 4 * kParameters / 64 + 4 * kTokens * kHeadDim);  // and rotary tables
}

TEST_CASE("numbers are a flag, a flag for each parameter, loss, arithmetic and an owner's norm") {
  Recipe recipe = recipe_of(1, "zigzag", "gather", 64);
  for (const int rank : {0, 63}) {
    int64_t reduced = 0, gathered = 0;
    for (const PlannedTraffic& row : plan_of(recipe, rank).sent)
      if (row.what == "numbers") (row.collective == "all_reduce" ? reduced : gathered) += row.bytes;
    // The last process owns single numbers: it sends them to 63, the others send theirs to it. It also owns its
    // part of the parameters' flags, of which the first process owns none as there are fewer than 64.
    REQUIRE(kTensors < 64);
    const int64_t numbers = 4 + 8 + 8;
    CHECK(reduced == (rank == 0 ? numbers + 4 * kTensors
                                : 63 * numbers + 4 * (kTensors - 1 + 63)));
    CHECK(gathered == 63 * 8);
  }
}

TEST_CASE("without ZeRO gradients are summed and come back, and no parameter is sent") {
  Recipe recipe = recipe_of(1, "zigzag", "gather", 64);
  recipe.parallel.zero = 0;
  const RecipePlan plan = plan_of(recipe, 0);
  CHECK(sent(plan, "", "gradients", "all_reduce") == 2 * 4 * kParameters / 64 * 63);
  CHECK(sent(plan, "", "parameters", "all_gather") == 0);
}

TEST_CASE("a gather sends a process's rows to all who see them, and gradients of what it sees") {
  struct Case {
    int64_t context;
    std::string layout;
    int rank;
    int64_t forward, backward;  // in pieces of T / n or, zigzag, of T / 2n rows
  };
  // In order, rank r is seen by n - 1 - r later ones and sees r. From both ends, the early piece is seen by the
  // n - 1 others, the late one by the r whose late piece is later; it sees the n + (n - 1 - r) - 1 pieces of
  // others before its late one.
  const std::vector<Case> cases = {
      {4, "contiguous", 0, 3, 0},    {4, "contiguous", 1, 2, 1},    {4, "contiguous", 3, 0, 3},
      {4, "contiguous", 62, 1, 2},   {64, "contiguous", 0, 63, 0},  {64, "contiguous", 40, 23, 40},
      {64, "contiguous", 63, 0, 63}, {4, "zigzag", 0, 3, 6},        {4, "zigzag", 2, 5, 4},
      {4, "zigzag", 63, 6, 3},       {64, "zigzag", 0, 63, 126},    {64, "zigzag", 63, 126, 63},
      {64, "zigzag", 10, 73, 116},
  };
  for (const Case& c : cases) {
    CAPTURE(c.context);
    CAPTURE(c.layout);
    CAPTURE(c.rank);
    const int64_t groups = kWorld / c.context, micro = 2;
    const Recipe recipe = recipe_of(c.context, c.layout, "gather", micro * groups);
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const RecipePlan plan = plan_of(recipe, c.rank, compute);
      REQUIRE(plan.micro_batches == micro);
      const int64_t pieces = c.layout == "zigzag" ? 2 * c.context : c.context;
      const int64_t row = 2 * kRowBytes / (compute == DType::kBF16 ? 2 : 1);  // of k and of v
      const int64_t piece = micro * kFullLayers * row * kTokens / pieces;
      CHECK(sent(plan, "full", "keys and values", "all_to_all") == c.forward * piece);
      CHECK(sent(plan, "full", "keys and values", "all_to_all", true) == c.backward * piece);
      // A window's reach to whoever holds what follows a piece, and its gradient to whoever holds what precedes:
      // neighbours, in order one after and one before, from both ends two of each, the ends one.
      const int64_t place = c.rank % c.context, last = c.context - 1;
      const int64_t after = place < last ? 1 : 0, before = place > 0 ? 1 : 0;
      const int64_t reach = micro * kFullLayers * row * (kWindow - 1);
      const bool zigzag = c.layout == "zigzag";
      CHECK(sent(plan, "local", "halo of keys and values", "all_to_all") ==
            reach * (zigzag ? after + before : after));
      CHECK(sent(plan, "local", "halo of keys and values", "all_to_all", true) ==
            reach * (zigzag ? after + before : before));
      // Gradients and parameters go among all 64 whatever the mesh: in f32, and as ops read them.
      CHECK(sent(plan, "", "gradients", "reduce_scatter") == 4 * kParameters / 64 * 63);
      CHECK(sent(plan, "", "parameters", "all_gather") ==
            (compute == DType::kBF16 ? 2 : 4) * kParameters / 64 * 63);
    }
  }
}

TEST_CASE("a trade of heads sends all but one in n of a process's heads, and rows of its own heads home") {
  for (const int64_t context : {4, 64})
    for (const char* layout : {"contiguous", "zigzag"})
      for (const char* recompute : {"none", "block"}) {
        CAPTURE(context);
        CAPTURE(layout);
        CAPTURE(recompute);
        Recipe recipe = recipe_of(context, layout, "heads", 2 * kWorld / context);
        recipe.precision.recompute = recompute;
        const RecipePlan plan = plan_of(recipe, 3);
        // q, k and v leave and the mixed heads come home, T / n rows of each, of which a process keeps an nth.
        const int64_t trade =
            2 * kFullLayers * 4 * kRowBytes * (kTokens / context) / context * (context - 1);
        const int64_t forwards = recipe.precision.recompute == "block" ? 2 : 1;
        CHECK(sent(plan, "full", "heads", "all_to_all") == forwards * trade);
        CHECK(sent(plan, "full", "heads", "all_to_all", true) == trade);
        CHECK(sent(plan, "full", "keys and values", "all_to_all") == 0);
      }
}

TEST_CASE("the arithmetic of a step does not depend on how many processes share it, or how") {
  Recipe recipe = recipe_of(1, "zigzag", "gather", 128);
  const double alone = plan_recipe(recipe, 1, 0, kMetaCpuDevice, DType::kF32, kVocabulary).flops;
  // Six a weight and token, embedding once as the head; four for each query, key and channel, three times as
  // backward is twice the forward. A query at position i sees i + 1 keys, in a window at most its size.
  const double tokens = 128 * kTokens;
  const double matrices = static_cast<double>(kParameters - (2 * kLayers + 1) * kHidden);
  const double all_pairs = kTokens * (kTokens + 1) / 2.0;
  const double window_pairs = kWindow * (kWindow + 1) / 2.0 + (kTokens - kWindow) * double{kWindow};
  const double want = 6 * matrices * tokens +
                      12.0 * kFullLayers * kHeads * kHeadDim * 128 * (all_pairs + window_pairs);
  CHECK(alone == doctest::Approx(want).epsilon(1e-12));
  for (const int64_t context : {1, 4, 64})
    for (const char* layout : {"contiguous", "zigzag"}) {
      recipe.parallel.context = context;
      recipe.parallel.layout = layout;
      CHECK(plan_of(recipe, 5).flops == doctest::Approx(want).epsilon(1e-12));
    }
}

void learn_only(Recipe& recipe, const std::string& pattern) {
  ParamGroupConfig all, some;
  all.pattern = std::string(1, '*');
  all.freeze = true;
  some.pattern = pattern;
  some.freeze = false;
  recipe.optim.groups = {all, some};
}

TEST_CASE("what is frozen costs no gradient, and what comes before all that is learned no backward at all") {
  Recipe recipe = recipe_of(4, "zigzag", "gather", 16);
  learn_only(recipe, "model.layers.2.mlp.*");
  const double tokens = 16 * kTokens, attention = 4.0 * kHidden * kHeads * kHeadDim,
               mlp = 3.0 * kHidden * kInner, head = double{kVocabulary} * kHidden;
  const double matrices = 2 * (attention + mlp) +             // forward only
                          2 * attention + 3 * mlp +           // learned, input's gradient in front of it
                          3 * 2 * (attention + mlp) + 2 * head;  // input's gradient
  const double all_pairs = kTokens * (kTokens + 1) / 2.0;
  const double window_pairs = kWindow * (kWindow + 1) / 2.0 + (kTokens - kWindow) * double{kWindow};
  // Layers 0, 2 and 4 have windows; 0 and 1 are mixed forward only.
  const double pairs = (1 + 3 + 3) * window_pairs + (1 + 3 + 3) * all_pairs;
  const RecipePlan plan = plan_of(recipe, 5);
  CHECK(plan.flops ==
        doctest::Approx(2 * matrices * tokens + 4.0 * kHeads * kHeadDim * 16 * pairs).epsilon(1e-12));
  CHECK(plan.memory.now[static_cast<size_t>(MemoryOwner::kGradients)] == 4 * 3 * kHidden * kInner);
}

TEST_CASE("a plan is that of the phase of the gates that needs most") {
  constexpr int64_t kContext = 4, kInnerUtility = 32;
  Recipe recipe = recipe_of(kContext, "contiguous", "gather", 2 * kWorld / kContext);
  recipe.model.mixers = {{"pruned", {.kind = "sp_kv", .window = kWindow, .context = "gather",
                                     .utility_hidden = kInnerUtility}}};
  recipe.model.schedule = {"pruned"};
  recipe.schedule.steps = 8;  // the last two are hard: with a frozen trunk they learn nothing
  learn_only(recipe, "*.utility.*");
  constexpr int64_t kLearned =
      kLayers * (kInnerUtility * kHidden + kInnerUtility + kKvHeads * kInnerUtility + kKvHeads);
  const RecipePlan plan = plan_of(recipe, 1);
  CHECK(plan.memory.now[static_cast<size_t>(MemoryOwner::kGradients)] == 4 * kLearned);
  int64_t forward = 0, backward = 0, gradients = 0;
  for (const PlannedTraffic& row : plan.sent) {
    if (row.what == "gradients") gradients += row.bytes;
    if (row.mixer.empty()) continue;
    CHECK(row.what == "keys and values");  // open keys are seen from anywhere
    CHECK(row.layers == kLayers);
    (row.backward ? backward : forward) += row.bytes;
  }
  // Short biases are not cut evenly among 64.
  CHECK(std::abs(gradients - 4 * kLearned / 64 * 63) < 4 * 64);
  // The second of four is seen by two and sees one. Biases are learned everywhere; keys and values of the first layer,
  // before all that is learned, are not.
  constexpr int64_t kPiece = 2 * kTokens / kContext, kBiasBytes = 4 * kKvHeads;
  CHECK(forward == 2 * kPiece * kLayers * (2 * kRowBytes + kBiasBytes));
  CHECK(backward == kPiece * ((kLayers - 1) * 2 * kRowBytes + kLayers * kBiasBytes));
}

TEST_CASE("a plan leaves nothing behind and is the same again") {
  for (const Device device : {kMetaCpuDevice, kMetaCudaDevice}) {
    const int64_t live = memory_report(DeviceKind::kMeta).total_now;
    const Recipe recipe = recipe_of(4, "zigzag", "gather", 16);
    const RecipePlan first = plan_of(recipe, 0, DType::kBF16, device);
    CHECK(memory_report(DeviceKind::kMeta).total_now == live);
    const RecipePlan second = plan_of(recipe, 0, DType::kBF16, device);
    CHECK(second.memory.total_peak == first.memory.total_peak);
    CHECK(second.sent.size() == first.sent.size());
  }
}
