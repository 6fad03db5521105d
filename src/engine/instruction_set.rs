//! The instruction sets of the CPU kernels, which are compiled for several of them.

/// Instruction set of our own loops, chosen at program start.
#[must_use]
pub fn vector_instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match pulp::Arch::new() {
        pulp::Arch::V4(_) => "AVX-512",
        pulp::Arch::V3(_) => "AVX2",
        _ => "baseline",
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "baseline";
}

/// Instruction set of the matrix products; repeats the rule by which the `gemm` crate chooses it
/// (gemm-common 0.19, gemm.rs).
#[must_use]
pub fn matmul_instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            "AVX-512"
        } else if std::arch::is_x86_feature_detected!("fma") {
            "FMA"
        } else {
            "baseline"
        }
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "baseline";
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_what_the_cpu_has() {
        let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
        assert_eq!(vector_instructions() == "baseline", !has_avx2);
        assert_eq!(
            matmul_instructions() == "AVX-512",
            std::arch::is_x86_feature_detected!("avx512f")
        );
    }
}
