//! ImageLocality: prefers nodes that have the pod's images already, the more so the larger and the more widespread they are.

use crate::framework::{Plugin, SCORE_MAX, Score};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

const MEGABYTE: i64 = 1024 * 1024;
/// Images smaller than this are not worth a preference.
const SIZE_MIN: i64 = 23 * MEGABYTE;
/// Beyond this, for each container, size makes no more difference.
const SIZE_MAX_PER_CONTAINER: i64 = 1000 * MEGABYTE;

pub struct ImageLocality;

struct Images<'a> {
    images: &'a [String],
    cluster: &'a Snapshot,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(&self, pod: &'a PodInfo, cluster: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let images = &pod.wants.images;
        let known = images.iter().any(|image| cluster.nodes_with_image(image) > 0);
        known.then(|| Box::new(Images { images, cluster }) as Box<dyn Score>)
    }
}

impl Score for Images<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        // An image that few nodes have counts less, or all pods that use it would crowd there.
        let weigh = |image: &String, size: i64| {
            let spread = self.cluster.nodes_with_image(image) as f64 / self.cluster.len().max(1) as f64;
            (size as f64 * spread) as i64
        };
        let sizes = self.images.iter().filter_map(|image| Some(weigh(image, *node.facts.images.get(image)?)));
        let max = SIZE_MAX_PER_CONTAINER * self.images.len() as i64;
        let sum = sizes.sum::<i64>().clamp(SIZE_MIN, max);
        SCORE_MAX * (sum - SIZE_MIN) / (max - SIZE_MIN)
    }
}
