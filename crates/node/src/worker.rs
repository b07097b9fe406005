use std::sync::mpsc;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread that owns something and does jobs with it, one after the other. Dropping the worker ends the thread once
/// the jobs given before are done.
pub(crate) struct Worker<T> {
    jobs: Option<mpsc::Sender<Job<T>>>,
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn start(name: &str, mut owned: T) -> Self {
        let (jobs, inbox) = mpsc::channel::<Job<T>>();
        let body = move || inbox.into_iter().for_each(|job| job(&mut owned));
        std::thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .expect("the operating system starts a thread");
        Self { jobs: Some(jobs) }
    }

    /// Queues a job; false when the worker is closed.
    pub(crate) fn run(&self, job: impl FnOnce(&mut T) + Send + 'static) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(Box::new(job)).is_ok())
    }

    /// No more jobs from now on.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
    }
}
