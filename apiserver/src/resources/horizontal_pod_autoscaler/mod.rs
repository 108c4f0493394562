//! HorizontalPodAutoscaler: how many pods a workload is to have, by what they are measured to use. One kind in two versions; stored
//! in the form of `autoscaling/v2`.

mod cells;
mod conversion;
pub mod v1;
pub mod v2;
mod validation;
