"""ncu's table, as an H100 with ncu 2025.3.1 wrote it, becomes kernels with their counts."""

from pathlib import Path

import pytest

from flopray.errors import MeasurementError, Unsupported
from flopray.flops.executed.classes import kernel_class, short_name
from flopray.flops.executed.counts import by_label
from flopray.flops.executed.metrics import CHIPS, passes_for, shared_runs
from flopray.flops.executed.report import launches, problem_of
from flopray.point import PRECISIONS, unit_of

DATA = Path(__file__).parents[1] / "data" / "ncu"


def test_recorded_fp32_products_count_what_the_tiles_of_their_names_say():
    (cuda,) = passes_for("fp32", "9.0")
    found = by_label(launches((DATA / "h100_fp32_cuda_cores.csv").open()))["0"]  # n=4 d=512 m=128, both passes
    flops = {}
    for launch in found:
        values = {name: launch.values.get(name, 0) for name in cuda.weights}
        kind = kernel_class(launch.kernel)
        flops[kind] = flops.get(kind, 0) + cuda.flops(values)
    forward, backward = 4 * 2 * 512**2 * 128, (3 * 4 + 2) * 512**2 * 128
    assert forward + backward <= flops["gemm"] <= 1.01 * (forward + backward)
    assert flops["elementwise"] > 0
    assert set(flops) == {"gemm", "elementwise", "reduction"}


def test_recorded_bf16_products_count_exactly_where_tiles_divide():
    tensor = passes_for("bf16", "9.0")[1]
    found = by_label(launches((DATA / "h100_bf16_tensor_cores.csv").open()))["2"]  # n=8 d=1024 m=128, both passes
    flops = [tensor.flops(launch.values) for launch in found if kernel_class(launch.kernel) == "gemm"]
    assert flops == [268_435_456] * (8 + 7 + 8)


def test_a_cut_table_gives_what_is_whole():
    text = (DATA / "h100_fp32_cuda_cores.csv").read_text()
    whole = launches(text.splitlines())
    cut = launches(text[: int(len(text) * 0.6)].splitlines())
    assert 0 < len(cut) < len(whole)
    assert cut[:-1] == whole[: len(cut) - 1]


def test_another_table_is_an_error():
    with pytest.raises(ValueError, match="lacks the column"):
        launches(['"ID","Kernel Name"', '"1","x"'])


def test_a_recorded_refusal_is_typed():
    problem = problem_of((DATA / "counters_in_use.csv").read_text())
    assert isinstance(problem, MeasurementError)
    assert "dcgmi profile --pause" in str(problem)
    assert problem_of("==PROF== fine\n==WARNING== uncontrolled GPU caches") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ampere_sgemm_32x32_sliced1x4_nn", "gemm"),
        ("volta_h884gemm_64x64_ldg8_f2f_nn", "gemm"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>(...)", "reduction"),
        ("sm80_xmma_gemm_f32f32_tn_n_tilesize64x64x8_execute_split_k_kernel__5x_cublas", "gemm"),
        ("nvjet_sm90_tst_128x64_64x8_1x2_h_bz_TNT", "gemm"),
        ("void gemv2T_kernel_val<int, int, float>(...)", "gemm"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>(...)", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "attention"),
        ("void at::native::(anonymous namespace)::softmax_warp_forward<float, float, 8>(...)", "normalisation"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>(...)", "reduction"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>(int)", "elementwise"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<...>(...)", "optimizer"),
        ("triton_poi_fused_sigmoid_0", "elementwise"),
        ("triton_red_fused_mean_3", "reduction"),
        ("mystery_kernel", "other"),
    ],
)
def test_kernels_of_all_generations_have_a_class(name, kind):
    assert kernel_class(name) == kind


def test_a_name_that_tells_nothing_is_put_down_to_its_operation():
    assert kernel_class("k7", operation="aten.mm.default") == "gemm"
    assert kernel_class("k7", operation="aten.gelu.default", pointwise=True) == "elementwise"
    assert kernel_class("k7", operation="aten._foreach_mul_.Scalar") == "optimizer"
    assert kernel_class("void at::vectorized_elementwise_kernel<4>(int)", phase="optimizer_step") == "optimizer"


def test_short_names_have_no_parameters():
    assert short_name("void cutlass::Kernel2<cutlass_80_simt_sgemm_64x64>(T1::Params)") == (
        "cutlass::Kernel2<cutlass_80_simt_sgemm_64x64>"
    )
    assert len(short_name("void f<" + "a, " * 200 + ">(int)")) == 160


def test_every_chip_and_precision_has_counters_or_says_why_not():
    for capability in CHIPS:
        for precision in PRECISIONS:
            fp8 = unit_of(precision) == "fp8"
            lacking = ("tf32", "bf16") if capability in ("7.0", "7.5") else ()
            if precision in lacking or (fp8 and float(capability) < 8.9):
                with pytest.raises(Unsupported, match="no tensor cores"):
                    passes_for(precision, capability)
            else:
                halves_apart = precision == "fp16" and capability not in ("7.0", "7.5", "10.0", "10.3")
                tensor = 0 if precision == "fp32" else 2 if fp8 or halves_apart else 1
                assert len(passes_for(precision, capability)) == 1 + tensor
    with pytest.raises(Unsupported, match=r"compute capability 1\.0"):
        passes_for("fp32", "1.0")


def test_fp8_is_counted_beside_what_stays_in_bf16():
    # sm__ops_path_tensor_src_fp8 counts 2 M N K of an fp8 product; attention and the output projection are bf16.
    of_hopper = [set(one.weights) for one in passes_for("fp8", "9.0") if one.unit == "tensor"]
    assert of_hopper == [{"sm__ops_path_tensor_src_bf16_dst_fp32.sum"}, {"sm__ops_path_tensor_src_fp8.sum"}]
    assert passes_for("fp8_rowwise", "9.0") == passes_for("fp8", "9.0")
    cuda = next(one for one in passes_for("fp8", "9.0") if one.unit == "cuda")
    assert any("_op_hfma_" in name for name in cuda.weights)
    # beside bf16 points one more run is enough, and each point has its own precision's counters
    shared = shared_runs(["bf16", "fp8"], "9.0")
    assert [set(one.passes) for one in shared] == [{"bf16", "fp8"}, {"bf16", "fp8"}, {"fp8"}]


def test_no_run_of_fp16_on_hopper_needs_a_second_pass():
    # sm__ops_path_tensor_src_fp16 needs two; of its three parts, these two runs need one each (CUPTI 13.0).
    of_hopper = [set(one.weights) for one in passes_for("fp16", "9.0") if one.unit == "tensor"]
    assert of_hopper == [
        {"sm__ops_path_tensor_op_hgmma_src_fp16.sum", "sm__ops_path_tensor_op_hmma_src_fp16_dst_fp32.sum"},
        {"sm__ops_path_tensor_op_hmma_src_fp16_dst_fp16.sum"},
    ]


def test_products_in_fp8_are_products():
    assert kernel_class("k7", operation="aten._scaled_mm.default") == "gemm"
