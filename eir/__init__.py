"""An Equipment Identity Register: the control plane beside a Rust data plane."""
