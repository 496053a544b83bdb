//! The CustomResourceDefinition, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::experiment::ShadowExperiment;

/// The CRD as it is applied to a cluster.
pub fn crd() -> CustomResourceDefinition {
    ShadowExperiment::crd()
}
