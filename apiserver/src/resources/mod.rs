//! The built-in kinds: one file each. This file is only the list.

use crate::kind::{Builtin, Strategy};
use std::sync::Arc;

mod config_map;

pub fn builtin() -> Vec<Arc<dyn Strategy>> {
    vec![Arc::new(Builtin::<config_map::ConfigMap>::new())]
}
