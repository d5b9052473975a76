// Every wrapper of kernels/xpu on random inputs against formulas written here: in the emulator's three
// builds, and with nvcc on a device. With LH_XPU_DUMP=folder also the device against the emulator
// (dump.h).
#include "kernels/xpu/conformance.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/xpu/dump.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<unsigned char> random_bytes(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<unsigned char> out(n);
  for (auto& x : out) x = static_cast<unsigned char>(random());
  return out;
}

/// Place of element (row, column) in an image of swizzled rows of 128 or 64 bytes.
std::size_t swizzled(int row, int column, int element_bytes, int row_bytes) {
  const int chunk = column * element_bytes / 16, flip = row_bytes == 128 ? row % 8 : row / 2 % 4;
  return static_cast<std::size_t>(row * row_bytes + (chunk ^ flip) * 16 +
                                  column * element_bytes % 16);
}

/// Stores element (row, column) of an operand of `rows` rows, in blocks of `columns` columns.
void put(std::vector<bf16>& image, int rows, int columns, int row, int column, bf16 x) {
  const int base = column / columns * rows * columns;
  image[base + swizzled(row, column % columns, 2, 2 * columns) / 2] = x;
}


float tf32_value(std::uint32_t bits) {
  bits &= ~0x1fffu;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

TEST_CASE("conformance: shuffles and ballots") {
  for_each_mode([] {
    const auto in = random_values<float>(32, 1);
    std::vector<double> wide(32);
    for (int i = 0; i < 32; ++i) wide[i] = in[i] * 1e9 + i;
    Buffer<float> bi(in);
    Buffer<double> bw(wide), wide_out(32);
    for (const int operand : {1, 3, 16, 31}) {
      CAPTURE(operand);
      Buffer<float> out(5 * 32);
      run_shuffles(bi.get(), bw.get(), out.get(), wide_out.get(), operand);
      auto got = out.host();
      const auto got_wide = wide_out.host();
      for (int l = 0; l < 32; ++l) {
        CHECK(got[l] == in[(5 * l + operand) % 32]);
        CHECK(got[32 + l] == in[l ^ operand]);
        CHECK(got[64 + l] == in[l >= operand ? l - operand : l]);
        CHECK(got[96 + l] == in[l + operand < 32 ? l + operand : l]);
        if (l < 16) CHECK(got[128 + l] == in[l ^ 4]);
        CHECK(got_wide[l] == wide[l ^ operand]);
      }
      got.resize(128 + 16);
      compare_worlds("shuffle" + std::to_string(operand), got);
    }
    std::vector<int> flags(32);
    unsigned want = 0;
    for (int l = 0; l < 32; ++l) {
      flags[l] = l * 7 % 5 == 0 ? l + 1 : 0;
      if (flags[l]) want |= 1u << l;
    }
    Buffer<int> bf(flags);
    Buffer<unsigned> votes(64);
    run_ballots(bf.get(), votes.get());
    const auto got = votes.host();
    for (int l = 0; l < 32; ++l) {
      CHECK(got[l] == want);
      CHECK(got[32 + l] == (want & (l < 16 ? 0xffffu : 0xffff0000u)));
    }
    compare_worlds("ballot", got);
  });
}

TEST_CASE("conformance: named barriers hand values over round after round") {
  for_each_mode([] {
    const int rounds = 7;
    const auto in = random_values<float>(64 * rounds, 2);
    Buffer<float> bi(in), out(in.size());
    run_named_barriers(bi.get(), out.get(), rounds);
    const auto got = out.host();
    for (int r = 0; r < rounds; ++r)
      for (int t = 0; t < 64; ++t) CHECK(got[r * 64 + t] == in[r * 64 + 63 - t]);
  });
}

template <int kBytes>
void copy_case() {
  const int rounds = 8, valid = 64 * 6 + 11;
  const auto in = random_bytes(static_cast<std::size_t>(valid) * kBytes, 3);
  Buffer<unsigned char> bi(in), out(static_cast<std::size_t>(64) * rounds * kBytes);
  run_copy_async<kBytes>(bi.get(), out.get(), rounds, valid);
  const auto got = out.host();
  for (int r = 0; r < rounds; ++r)
    for (int t = 0; t < 64; ++t)
      for (int b = 0; b < kBytes; ++b) {
        const int source = r * 64 + 63 - t;
        const unsigned char want = source < valid ? in[source * kBytes + b] : 0;
        REQUIRE(got[(r * 64 + t) * kBytes + b] == want);
      }
  compare_worlds("copy_async" + std::to_string(kBytes), got);
}

TEST_CASE("conformance: cp.async of every size, groups and zero filling") {
  for_each_mode([] {
    copy_case<4>();
    copy_case<8>();
    copy_case<16>();
  });
}

TEST_CASE("conformance: ldmatrix plain and transposed") {
  for_each_mode([] {
    const auto tile = random_values<bf16>(32 * 8, 4);
    Buffer<bf16> bt(tile);
    for (const bool transpose : {false, true}) {
      Buffer<std::uint32_t> out(32 * 4);
      run_load_matrix(bt.get(), out.get(), transpose);
      const auto got = out.host();
      for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) {
          const int g = l / 4, t = l % 4;
          const bf16 low = transpose ? tile[(8 * i + 2 * t) * 8 + g] : tile[(8 * i + g) * 8 + 2 * t];
          const bf16 high =
              transpose ? tile[(8 * i + 2 * t + 1) * 8 + g] : tile[(8 * i + g) * 8 + 2 * t + 1];
          CHECK(got[l * 4 + i] == xpu::pack(low, high));
        }
      compare_worlds(transpose ? "ldmatrix_trans" : "ldmatrix", got);
    }
  });
}

TEST_CASE("conformance: mma in bf16 and tf32") {
  for_each_mode([] {
    for (const bool tf32 : {false, true}) {
      const int k = tf32 ? 8 : 16;
      const auto a_values = random_values<float>(16 * 16, 5), b_values = random_values<float>(16 * 8, 6);
      const auto d_values = random_values<float>(16 * 8, 7);
      std::vector<std::uint32_t> a(32 * 4), b(32 * 2);
      std::vector<float> d(32 * 4);
      std::vector<double> want(32 * 4);
      const auto left = [&](int m, int x) { return a_values[m * 16 + x]; };
      const auto right = [&](int x, int n) { return b_values[x * 8 + n]; };
      const auto narrow = [](float x) { return xpu::from_float<bf16>(x); };
      const auto bits_of = [](float x) {
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return bits & ~0x1fffu;  // exact in tf32
      };
      for (int l = 0; l < 32; ++l) {
        const int g = l / 4, t = l % 4;
        for (int i = 0; i < 4; ++i) {
          const int m = g + i % 2 * 8, x = tf32 ? t + i / 2 * 4 : 2 * t + i / 2 * 8;
          a[l * 4 + i] = tf32 ? bits_of(left(m, x))
                              : xpu::pack(narrow(left(m, x)), narrow(left(m, x + 1)));
          d[l * 4 + i] = d_values[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
        }
        for (int i = 0; i < 2; ++i) {
          const int x = tf32 ? t + 4 * i : 2 * t + 8 * i;
          b[l * 2 + i] = tf32 ? bits_of(right(x, g))
                              : xpu::pack(narrow(right(x, g)), narrow(right(x + 1, g)));
        }
      }
      const auto kept = [&](float x) {
        return static_cast<double>(tf32 ? tf32_value(bits_of(x)) : xpu::to_float(narrow(x)));
      };
      for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) {
          const int m = l / 4 + i / 2 * 8, n = l % 4 * 2 + i % 2;
          want[l * 4 + i] = d[l * 4 + i];
          for (int x = 0; x < k; ++x) want[l * 4 + i] += kept(left(m, x)) * kept(right(x, n));
        }
      Buffer<std::uint32_t> ba(a), bb(b);
      Buffer<float> bd(d);
      run_mma(ba.get(), bb.get(), bd.get(), tf32);
      check_close(bd.host(), want, 1e-6, 1e-5, tf32 ? "tf32" : "bf16");
      compare_worlds(tf32 ? "mma_tf32" : "mma_bf16", bd.host(), 1e-5);
    }
  });
}

TEST_CASE("conformance: special functions, conversions, vectors, reductions, atomics") {
  for_each_mode([] {
    auto x = random_values<float>(500, 8, 4.0f);
    for (float& v : x) v = std::fabs(v) + 1e-3f;
    Buffer<float> bx(x), out(1500);
    run_math(bx.get(), out.get(), 500);
    std::vector<double> want;
    for (const float v : x) want.push_back(std::exp(static_cast<double>(v)));
    for (const float v : x) want.push_back(std::exp2(static_cast<double>(v)));
    for (const float v : x) want.push_back(1 / std::sqrt(static_cast<double>(v)));
    check_close(out.host(), want, 4e-6, 0, "special functions");  // 2 ulp, and x log2(e) before ex2

    std::vector<float> odd = {0.0f, -0.0f, 1.00390625f, 1.01171875f, 1e-40f, 3.4e38f, INFINITY,
                              -INFINITY, NAN, 1.0f + 0x1p-11f, 1.0f + 0x1.8p-10f};
    const int n = static_cast<int>(odd.size());
    Buffer<float> bo(odd), back(odd.size());
    Buffer<bf16> narrow(odd.size());
    Buffer<std::uint32_t> tf32(odd.size());
    run_conversions(bo.get(), narrow.get(), back.get(), tf32.get(), n);
    const auto b = back.host();
    const auto bits = narrow.host();
    CHECK(b[2] == 1.0f);         // ties go to even: down
    CHECK(b[3] == 1.015625f);    // and up
    CHECK(std::isinf(b[5]));     // rounds past the largest
    CHECK((b[6] == INFINITY && b[7] == -INFINITY));
    CHECK(bits[8].bits == 0x7fff);
    CHECK(std::signbit(b[1]));
    CHECK(tf32_value(tf32.host()[9]) == 1.0f + 0x1p-10f);  // ties go away from zero
    std::vector<std::uint16_t> raw;
    for (const bf16 v : bits) raw.push_back(v.bits);
    compare_worlds("to_bf16", raw);

    const auto v4 = random_values<float>(64, 9);
    const auto v8 = random_values<bf16>(64, 10);
    Buffer<float> bv4(v4), o4(64);
    Buffer<bf16> bv8(v8), o8(64);
    run_vectors<float, 4>(bv4.get(), o4.get(), 16);
    run_vectors<bf16, 8>(bv8.get(), o8.get(), 8);
    for (int i = 0; i < 64; ++i) {
      CHECK(o4.host()[i] == v4[63 - i]);
      CHECK(o8.host()[i].bits == v8[63 - i].bits);
    }

    const auto r = random_values<float>(512, 11);
    Buffer<float> br(r), reduced(768);
    run_reductions(br.get(), reduced.get());
    const auto got = reduced.host();
    double first = 0, second = 0;
    for (int i = 0; i < 256; ++i) first += r[i];
    for (int i = 0; i < 256; ++i) second += r[256 + i] - first;
    for (int i = 0; i < 256; ++i) {
      double sum = 0, top = -1e30;
      for (int j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) {
        sum += r[j];
        top = std::max<double>(top, r[j]);
      }
      CHECK(got[i] == doctest::Approx(sum).epsilon(1e-5));
      CHECK(got[256 + i] == top);
      CHECK(got[512 + i] == doctest::Approx(second).epsilon(1e-5));
    }
    compare_worlds("reductions", got);

    Buffer<int> as_int(std::vector<int>{0});
    Buffer<unsigned> as_unsigned(std::vector<unsigned>{0});
    Buffer<float> as_float(std::vector<float>{0});
    run_atomics(as_int.get(), as_unsigned.get(), as_float.get());
    CHECK(as_int.host()[0] == -512 * 511 / 2);
    CHECK(as_unsigned.host()[0] == 512 * 511 / 2);
    CHECK(as_float.host()[0] == 512 * 511 / 4.0f);
  });
}

TEST_CASE("conformance: the last block of a group sees what the others wrote") {
  const int groups = 300, blocks = 9;  // more than run at once
  const auto in = random_values<float>(std::size_t(groups) * blocks * 128, 17);
  std::vector<float> want(std::size_t(groups) * 128, 0.0f);
  for (int g = 0; g < groups; ++g)
    for (int b = 0; b < blocks; ++b)
      for (int t = 0; t < 128; ++t) want[g * 128 + t] += in[(g * blocks + b) * 128 + 127 - t];
  for_each_mode([&] {
    const Buffer<float> bi(in), parts(in.size()), out(want.size());
    const Buffer<int> counters(std::vector<int>(groups, 0));
    for (int launch = 0; launch < 2; ++launch) {
      run_last_block(bi.get(), parts.get(), out.get(), counters.get(), groups, blocks);
      CHECK(out.host() == want);  // the same order of additions whichever block was last
      CHECK(counters.host() == std::vector<int>(groups, 0));
    }
  });
}

TEST_CASE("conformance: mbarriers go round their phases") {
  if (!has_sm90()) return;
  for_each_mode([] {
    const int rounds = 9;
    const auto in = random_values<float>(32 * rounds, 12);
    Buffer<float> bi(in), out(3 * in.size());
    run_mbarriers(bi.get(), out.get(), rounds);
    const auto got = out.host();
    for (int c = 0; c < 3; ++c)
      for (int r = 0; r < rounds; ++r)
        for (int l = 0; l < 32; ++l)
          CHECK(got[(c * rounds + r) * 32 + l] == in[r * 32 + 31 - l]);
  });
}

TEST_CASE("conformance: TMA loads swizzle and fill with zeros, stores drop what is outside") {
  if (!has_sm90()) return;
  for_each_mode([] {
    for (const auto& [bytes, line] : {std::pair{2, 128}, {4, 128}, {2, 64}, {4, 64}}) {
      const int rows = 37, row_elements = 240 / bytes, columns = row_elements - 24 / bytes;
      const int box_columns = line / bytes, box_rows = 16;
      const auto matrix = random_bytes(static_cast<std::size_t>(rows) * row_elements * bytes, 13);
      Buffer<unsigned char> bm(matrix);
      for (const auto& [x, y] : {std::pair{0, 0}, {8, 5}, {columns - 8, 30}, {-16, -3}, {0, 40}}) {
        CAPTURE(bytes);
        CAPTURE(line);
        CAPTURE(x);
        CAPTURE(y);
        for (const bool twice : {false, true}) {
          const int all = box_rows * (twice ? 2 : 1);
          Buffer<unsigned char> out(static_cast<std::size_t>(all) * line);
          run_tma_load(bm.get(), bytes, rows, columns, row_elements, box_rows, line, x, y,
                       twice, out.get());
          std::vector<unsigned char> want(out.host().size(), 0);
          for (int r = 0; r < all; ++r)
            for (int c = 0; c < box_columns; ++c) {
              if (y + r < 0 || y + r >= rows || x + c < 0 || x + c >= columns) continue;
              std::memcpy(&want[swizzled(r, c, bytes, line)],
                          &matrix[(static_cast<std::size_t>(y + r) * row_elements + x + c) * bytes],
                          static_cast<std::size_t>(bytes));
            }
          CHECK(out.host() == want);
        }
        const auto box = random_bytes(static_cast<std::size_t>(box_rows) * line, 14);
        Buffer<unsigned char> bb(box), target(matrix);
        run_tma_store(bb.get(), bytes, rows, columns, row_elements, box_rows, line, x, y,
                      target.get());
        std::vector<unsigned char> want = matrix;
        for (int r = 0; r < box_rows; ++r)
          for (int c = 0; c < box_columns; ++c) {
            if (y + r < 0 || y + r >= rows || x + c < 0 || x + c >= columns) continue;
            std::memcpy(&want[(static_cast<std::size_t>(y + r) * row_elements + x + c) * bytes],
                        &box[swizzled(r, c, bytes, line)], static_cast<std::size_t>(bytes));
          }
        CHECK(target.host() == want);
      }
    }
  });
}

TEST_CASE("conformance: wgmma of every shape, layout and source") {
  if (!has_sm90()) return;
  const int k = 128;
  for_each_mode([&] {
    for (const int n : {48, 64, 96, 128, 256}) {
      const auto a = random_values<bf16>(64 * k, 15), b = random_values<bf16>(static_cast<std::size_t>(k) * n, 16);
      const auto d = random_values<float>(static_cast<std::size_t>(64) * n, 17);
      std::vector<double> product(static_cast<std::size_t>(64) * n);
      for (int m = 0; m < 64; ++m)
        for (int j = 0; j < n; ++j)
          for (int x = 0; x < k; ++x)
            product[m * n + j] += static_cast<double>(xpu::to_float(a[m * k + x])) *
                                  xpu::to_float(b[x * n + j]);
      for (int source = 0; source < 3; ++source)
        for (const int columns : {64, 32})
          for (const bool b_outer : {false, true})
            for (const bool accumulate : {false, true}) {
              if (b_outer && n % columns != 0) continue;
              WgmmaCase c{n, columns, source == 1, b_outer, source == 2, accumulate,
                          accumulate != b_outer};
              CAPTURE(n);
              CAPTURE(columns);
              CAPTURE(source);
              CAPTURE(b_outer);
              std::vector<bf16> a_image(a), b_image(b.size());
              for (int m = 0; m < 64 && source < 2; ++m)
                for (int x = 0; x < k; ++x) {
                  if (source == 0) put(a_image, 64, columns, m, x, a[m * k + x]);
                  else put(a_image, k, columns, x, m, a[m * k + x]);
                }
              for (int j = 0; j < n; ++j)
                for (int x = 0; x < k; ++x) {
                  if (b_outer) put(b_image, k, columns, x, j, b[x * n + j]);
                  else put(b_image, n, columns, j, x, b[x * n + j]);
                }
              Buffer<bf16> ba(a_image), bb(b_image);
              Buffer<float> bd(d);
              run_wgmma(c, ba.get(), bb.get(), bd.get());
              std::vector<double> want = product;
              for (std::size_t i = 0; accumulate && i < want.size(); ++i) want[i] += d[i];
              check_close(bd.host(), want, 1e-5, 1e-4, "d");
              compare_worlds("wgmma" + std::to_string(n) + "_" + std::to_string(source) +
                                 (columns == 32 ? "_narrow" : "") +
                                 (b_outer ? "_outer" : "_inner") + (accumulate ? "_add" : ""),
                             bd.host(), 1e-4);
            }
    }
  }, true);
}

TEST_CASE("conformance: warpgroups change their register budgets") {
  if (!has_sm90()) return;
  for_each_mode([] {
    const auto in = random_values<float>(384, 18);
    Buffer<float> bi(in), out(384);
    run_register_budgets(bi.get(), out.get());
    CHECK(out.host() == in);
  });
}
