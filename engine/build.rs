//! `CROUPIER_CHECKER=loom` or `shuttle` builds this crate for a model checker: see src/sync.rs. A switch of this crate
//! alone, so that nothing else is built again for it.

fn main() {
    println!("cargo:rerun-if-env-changed=CROUPIER_CHECKER");
    match std::env::var("CROUPIER_CHECKER").as_deref() {
        Ok("loom") => println!("cargo:rustc-cfg=croupier_loom"),
        Ok("shuttle") => println!("cargo:rustc-cfg=croupier_shuttle"),
        Ok("") | Err(_) => {}
        Ok(other) => panic!("CROUPIER_CHECKER is loom or shuttle, not {other:?}"),
    }
}
