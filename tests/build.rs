//! Tells the tests how they were compiled: counts of instructions hold for one level of optimisation.

fn main() {
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo:rustc-env=VERGE_OPT_LEVEL={level}");
    println!("cargo:rerun-if-changed=build.rs");
}
