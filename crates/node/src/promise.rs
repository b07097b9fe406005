use std::sync::{Arc, Mutex};

use napi::{
    Env, JsDeferred,
    bindgen_prelude::{Object, ToNapiValue},
};

use crate::failure::Failure;

type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// The native end of a JavaScript promise; settled from any thread.
pub(crate) struct Promise<T: ToNapiValue + 'static>(JsDeferred<T, Resolver<T>>);

impl<T: ToNapiValue + 'static> Promise<T> {
    /// A promise and the object that JavaScript gets.
    pub(crate) fn new(env: &Env) -> napi::Result<(Self, Object<'_>)> {
        let (deferred, object) = env.create_deferred()?;
        Ok((Self(deferred), object))
    }

    /// Settles with a value that is made on JavaScript's thread.
    pub(crate) fn settle_with<V: Send + 'static>(
        self,
        outcome: Result<V, Failure>,
        make: impl FnOnce(V) -> T + Send + 'static,
    ) {
        match outcome {
            Ok(value) => self.0.resolve(Box::new(move |_| Ok(make(value)))),
            Err(failure) => self.reject(failure),
        }
    }

    /// Settles with what `make` gives, or with its error, on JavaScript's thread: there alone it may let go of what
    /// is JavaScript's.
    pub(crate) fn settle_there(self, make: impl FnOnce(&Env) -> Result<T, Failure> + Send + 'static) {
        self.0.resolve(Box::new(move |env| make(&env).map_err(Into::into)));
    }

    /// Settles with an error.
    pub(crate) fn reject(self, failure: Failure) {
        self.0.reject(failure.into());
    }
}

impl<T: ToNapiValue + Send + 'static> Promise<T> {
    /// Settles with a value.
    pub(crate) fn settle(self, outcome: Result<T, Failure>) {
        self.settle_with(outcome, |value| value);
    }
}

/// One promise that waits until there is something to give it.
///
/// Whoever makes something calls [`offer`](Self::offer); whoever wants something calls [`wait`](Self::wait). Both look
/// under the same lock, so nothing is missed between a look and a wait.
pub(crate) struct Waiting<T: ToNapiValue + 'static>(Arc<Mutex<Option<Promise<T>>>>);

impl<T: ToNapiValue + 'static> Clone for Waiting<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ToNapiValue + Send + 'static> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Settles `promise` with what `take` gives, now or at a later offer.
    pub(crate) fn wait(&self, promise: Promise<T>, take: impl FnOnce() -> Option<T>) {
        let mut waiting = self.0.lock().expect("no thread panics while it holds this");
        match take() {
            Some(value) => promise.settle(Ok(value)),
            None => {
                if let Some(earlier) = waiting.replace(promise) {
                    earlier.settle(Err(Failure::internal("two calls wait for the same thing")));
                }
            }
        }
    }

    /// Gives the waiting promise, if any, what `take` gives, if anything.
    pub(crate) fn offer(&self, take: impl FnOnce() -> Option<T>) {
        let mut waiting = self.0.lock().expect("no thread panics while it holds this");
        if waiting.is_some()
            && let Some(value) = take()
            && let Some(promise) = waiting.take()
        {
            promise.settle(Ok(value));
        }
    }
}
