"""A taskset of verifiers: small sums, with two rewards."""

import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str = ""


class Sum(vf.Task[SumData]):
    @vf.reward(weight=1.0)
    async def right(self, trace):
        return float(trace.last_reply.strip() == self.data.answer)

    @vf.reward(weight=0.1)
    async def short(self, trace):
        return float(len(trace.last_reply) <= 2)


class Sums(vf.Taskset[Sum, vf.TasksetConfig]):
    def load(self):
        for a in range(5):
            for b in range(5):
                yield Sum(SumData(prompt=f"{a} + {b} = ?", answer=str(a + b)))


__all__ = ["Sums"]
