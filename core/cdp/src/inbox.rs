//! The inbox: committed blocks of accepted events, numbered after their commit, read in order by the pipeline.

pub(crate) mod block;
pub(crate) mod sequence;
