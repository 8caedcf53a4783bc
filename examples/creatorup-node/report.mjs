// What a CreatorUp asks of the hub, in its order: who is this, may they, count this once, how much was it.

import { toStruct, toTime } from './hub.mjs';

/** Goes through the steps; `say` is told of each as a line, and what is returned is the same for programs. */
export async function report(hub, { feature, amount, batch, key }, say) {
  const told = { verified: null, access: null, recorded: [], monthly: null };

  const { answer: verified } = await hub.call('UserSyncService', 'VerifyToken', {});
  told.verified = {
    valid: verified.valid,
    user_id: verified.user.id,
    plan: verified.subscription?.plan ?? null,
    has_access: verified.has_access,
    reason: word(verified.reason, 'ACCESS_REASON_'),
    token_expires_at: toTime(verified.token_expires_at),
  };
  say(
    'verify',
    `the token is good until ${told.verified.token_expires_at}: user ${told.verified.user_id}, plan ${told.verified.plan ?? 'none'}`,
  );

  // A denial is an answer and no error. Nothing is reserved by asking: what decides is RecordUsage.
  const { answer: access } = await hub.call('MembershipService', 'CheckFeatureAccess', { feature, amount });
  told.access = {
    feature: access.feature,
    has_access: access.has_access,
    reason: word(access.reason, 'ACCESS_REASON_'),
    used: access.used,
    remaining: access.remaining ?? null,
  };
  say(
    'access',
    `${feature}: ${told.access.reason}, ${access.used} used this month, ${told.access.remaining ?? 'any number'} left`,
  );

  if (access.has_access) {
    // A batch has a key of its own from its creation on, kept with it; the second call stands for any repetition.
    const request = {
      usage_data: {
        batch_name: batch,
        batch_type: 'video',
        usage_type: feature,
        usage_amount: amount,
        metadata: toStruct({ video_count: amount, reported_by: 'creatorup-node' }),
      },
      idempotency_key: key,
    };
    for (const step of ['record', 'again']) {
      const { answer, attempts } = await hub.call('UsageService', 'RecordUsage', request);
      const recorded = {
        usage_id: answer.usage_id,
        outcome: word(answer.outcome, 'USAGE_OUTCOME_'),
        duplicate: answer.duplicate,
        month_year: answer.usage.month_year,
        attempts,
      };
      told.recorded.push(recorded);
      say(
        step,
        `batch "${batch}", key ${key}: ${recorded.outcome}, ${amount} in ${recorded.month_year}, record ${recorded.usage_id}${attempts > 1 ? `, after ${attempts} tries` : ''}`,
      );
    }
  }

  const { answer: monthly } = await hub.call('UsageService', 'GetMonthlyUsage', {});
  const byType = Object.fromEntries(monthly.by_type.map(({ type, total }) => [type, total]));
  told.monthly = { month_year: monthly.month_year, total: monthly.total, batches: monthly.batches, by_type: byType };
  say('monthly', `${monthly.month_year}: ${monthly.total} in ${monthly.batches} batches ${JSON.stringify(byType)}`);
  return told;
}

/** An enum's value as the hub's JSON spells it: ACCESS_REASON_GRANTED is granted. */
function word(value, prefix) {
  return value.slice(prefix.length).toLowerCase();
}
