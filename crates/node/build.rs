//! Links the binding the way the platform wants it.

fn main() {
    napi_build::setup();
}
