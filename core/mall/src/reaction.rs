//! What the mall does when a benefit rule grants a voucher.

use crate::error::Error;
use crate::mall::Mall;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::DomainEvent;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::{Error as KernelError, Problem};

/// Issues granted vouchers: one a grant, whatever is delivered how often. Stock is for sale and is not touched.
pub(crate) struct Grants {
    mall: Mall,
}

impl Grants {
    pub(crate) fn new(mall: Mall) -> Grants {
        Grants { mall }
    }
}

impl Reaction for Grants {
    fn consumer(&self) -> &'static str {
        "mall"
    }

    fn wants(&self, name: &str) -> bool {
        name == "voucher.granted.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move {
            let DomainEvent::VoucherGranted { member, product, grant, occurred_at, .. } = &envelope.event else { return Ok(nothing()) };
            let (mall, member, product, at) = (self.mall.clone(), member.clone(), product.clone(), *occurred_at);
            let source = format!("grant:{grant}");
            let apply: Apply = Box::new(move |tx| {
                let (mall, member, product, source) = (mall.clone(), member.clone(), product.clone(), source.clone());
                async move {
                    mall.issue(tx, &product, &member, &source, None, at).await.map_err(|error| match error {
                        Error::Kernel(error) => error,
                        other => KernelError::Problem(Problem::from(other)),
                    })
                }
                .boxed()
            });
            Ok(apply)
        }
        .boxed()
    }
}
