//! Who may call, for which purpose, in which gallery. Deny by default: what the policy does not name is refused.
//!
//! [`Access`] owns the galleries. A [`Pass`] is the only way to one: no pass, no gallery.

mod policy;

use std::{collections::BTreeMap, sync::Arc};

pub use policy::{ClientPolicy, Right};

use crate::{
    domain::{Case, CaseId, ClientId, GalleryName, ModelDigest, Purpose, RequestContext},
    gallery::{CaseError, CreateError, Galleries, Gallery},
};

/// Why a call is refused. Says what is missing to the operator's log; the caller learns the kind alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the policy knows no client of this name")]
    UnknownClient,
    #[error("the client has not the right `{}`", .0.as_str())]
    Right(Right),
    #[error("the client may not call for the purpose `{}`", .0.as_str())]
    Purpose(Purpose),
    #[error("the purpose `{}` does not go with the right `{}`", .0.as_str(), .1.as_str())]
    PurposeForRight(Purpose, Right),
    #[error("the client may not use this gallery")]
    Gallery,
}

/// The policy, and the galleries behind it.
#[derive(Debug)]
pub struct Access {
    clients: BTreeMap<ClientId, ClientPolicy>,
    galleries: Arc<Galleries>,
}

impl Access {
    pub fn new(clients: BTreeMap<ClientId, ClientPolicy>, galleries: Arc<Galleries>) -> Self {
        Self { clients, galleries }
    }

    /// Whether the policy has this client.
    pub fn knows(&self, client: &ClientId) -> bool {
        self.clients.contains_key(client)
    }

    /// Whether the policy gives the client the right; what for and where is [`Self::authorise`]'s to say.
    pub fn holds(&self, client: &ClientId, right: Right) -> bool {
        self.clients.get(client).is_some_and(|policy| policy.rights.contains(&right))
    }

    /// True once the store takes no further changes.
    pub fn store_failed(&self) -> bool {
        self.galleries.has_failed()
    }

    /// References in all galleries.
    pub fn references(&self) -> usize {
        self.galleries.list().iter().map(|gallery| gallery.describe().references).sum()
    }

    /// Checks that `client` may do what needs one of `rights` for the context's purpose, and hands out the pass for it.
    pub fn authorise(&self, client: &ClientId, rights: &[Right], context: &RequestContext) -> Result<Pass, Denied> {
        let policy = self.clients.get(client).ok_or(Denied::UnknownClient)?;
        if !policy.purposes.contains(&context.purpose) {
            return Err(Denied::Purpose(context.purpose));
        }
        let held = || rights.iter().copied().filter(|r| policy.rights.contains(r));
        let Some(first) = held().next() else {
            return Err(rights.first().map_or(Denied::UnknownClient, |r| Denied::Right(*r)));
        };
        if !held().any(|r| r.serves(context.purpose)) {
            return Err(Denied::PurposeForRight(context.purpose, first));
        }
        Ok(Pass {
            client: client.clone(),
            purpose: context.purpose,
            scores: policy.rights.contains(&Right::Scores),
            policy: policy.clone(),
            galleries: Arc::clone(&self.galleries),
        })
    }
}

/// The key to the galleries that one call may use. Only [`Access::authorise`] makes one.
#[derive(Debug)]
pub struct Pass {
    client: ClientId,
    purpose: Purpose,
    scores: bool,
    policy: ClientPolicy,
    galleries: Arc<Galleries>,
}

impl Pass {
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether raw scores may be shown.
    pub fn shows_scores(&self) -> bool {
        self.scores
    }

    /// The gallery, if the client may use it; `None` inside when there is none of this name yet.
    pub fn gallery(&self, name: &GalleryName) -> Result<Option<Arc<Gallery>>, Denied> {
        self.check(name)?;
        Ok(self.galleries.get(name))
    }

    /// The gallery, made if need be for templates of `model`.
    pub async fn gallery_for_enrolment(
        &self,
        name: &GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Result<Result<Arc<Gallery>, CreateError>, Denied> {
        self.check(name)?;
        Ok(self.galleries.get_or_create(name, model, dimension).await)
    }

    /// A case of a gallery that the client may use; of any other there is none.
    pub async fn case(&self, id: CaseId) -> Result<Option<Case>, CaseError> {
        // First whose it is: that a case of another gallery is damaged is nobody's business either.
        match self.galleries.gallery_of_case(id).await? {
            Some(gallery) if self.check(&gallery).is_ok() => self.galleries.case(id).await,
            _ => Ok(None),
        }
    }

    fn check(&self, name: &GalleryName) -> Result<(), Denied> {
        if self.policy.galleries.contains(name) { Ok(()) } else { Err(Denied::Gallery) }
    }
}
